"""Pure PyTorch, without RecBole: kernels, encodings, attention, backbones and losses."""

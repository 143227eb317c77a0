"""Positional kernels and encodings, and the attention that takes them: pure PyTorch, usable without RecBole."""

"""Look into a trained model: kernels, attention maps and interference."""

"""Sequential recommenders with positional kernels."""

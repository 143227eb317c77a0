"""Positional kernels: learnable triangular matrices over positions."""

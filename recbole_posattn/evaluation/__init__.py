"""Measures models on held-out interactions."""

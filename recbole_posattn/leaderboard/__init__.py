"""Side-by-side comparisons of models on the same targets, with spreads and tests."""

"""What is measured on held-out interactions."""

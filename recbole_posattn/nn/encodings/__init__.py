"""Positional encodings, by where they enter the model."""

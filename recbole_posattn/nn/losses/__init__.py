"""Losses over the item catalogue, whole or sampled."""

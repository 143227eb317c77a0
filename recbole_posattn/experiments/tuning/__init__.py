"""The best settings of a model, searched on validation data."""

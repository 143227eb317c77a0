"""Hyperparameter tuning on Ray Tune: on validation data, stopped and taken up again, never on the test set."""

"""One run: train, checkpoint, resume and load."""

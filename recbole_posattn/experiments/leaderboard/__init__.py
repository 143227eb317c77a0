"""Models side by side, with seeds, intervals and tests."""

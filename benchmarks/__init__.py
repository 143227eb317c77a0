"""Side-by-side measurements, one command each: ``python -m benchmarks.<name>`` from the root of a clone."""

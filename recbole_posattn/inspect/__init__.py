"""What trained models have learned."""

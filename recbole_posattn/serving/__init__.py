"""Use a trained model: recommendations and exports."""

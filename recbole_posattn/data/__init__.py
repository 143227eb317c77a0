"""Data between RecBole's atomic files and the models."""

"""Recommendations of trained models."""

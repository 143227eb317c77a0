"""The RecBole model classes."""

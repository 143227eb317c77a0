"""Data sets on disk in RecBole's format: download, check, convert and describe them."""

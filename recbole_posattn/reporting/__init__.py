"""Shared parts of all reports: terminal tables, cells, figures, pages, files."""

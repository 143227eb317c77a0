"""Raw dumps and tables to atomic files."""

"""Raw dumps, and any table of interactions, made into RecBole's atomic files."""

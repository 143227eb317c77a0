"""Files on disk in RecBole's format: download, check, convert to and describe."""

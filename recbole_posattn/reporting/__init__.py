"""What the reports of leaderboards and of tuning have in common: cells, figures, pages, files."""

"""Errors, and one reader for each file format that comes from outside the process; for all rooms."""

"""The ground floor: errors, and one reader for each format of file that comes from outside the process."""

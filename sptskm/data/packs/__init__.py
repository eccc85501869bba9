"""A data set in a few large files: writing and reading them, copies on a node's disk, and the way back to files."""

"""Store a data set in a few large files: write and read them, copy them to a node's disk, unpack them again."""

"""Small files that a kill at any moment leaves as they were, or whole."""

import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """A text file under a temporary name, then renamed; several processes may do it at once."""
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(text)
    partial.replace(path)

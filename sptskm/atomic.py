"""Small files that a kill at any moment leaves as they were, or whole."""

import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """A text file under a temporary name, then renamed; several processes may do it at once."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """The same for bytes."""
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_bytes(content)
    partial.replace(path)

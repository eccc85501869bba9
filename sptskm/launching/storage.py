"""File system for Ray Tune that writes files atomically; Tune itself overwrites them in place."""

import io
from pathlib import Path
from typing import Any

import pyarrow
from fsspec.implementations.local import LocalFileSystem
from pyarrow.fs import FSSpecHandler, PyFileSystem


class Renamed(io.FileIO):
    """File with a temporary name until it is closed."""

    def __init__(self, path: str) -> None:
        self.target = Path(path)
        self.partial = self.target.with_name(f".{self.target.name}.partial")
        self.whole = True
        super().__init__(self.partial, "wb")

    def write(self, content: Any) -> int:
        """Write all bytes; a file with an incomplete write is deleted on closing."""
        self.whole, left = False, memoryview(content)
        while left:
            left = left[super().write(left) :]
        self.whole = True
        return len(content)

    def close(self) -> None:
        """Close the file and rename it to its final name."""
        if not self.closed:
            super().close()
            if self.whole:
                self.partial.replace(self.target)
            else:
                self.partial.unlink()


class WholeFiles(FSSpecHandler):  # type: ignore[misc]  # pyarrow has no types
    """Local file system that writes files atomically."""

    def __init__(self) -> None:
        super().__init__(LocalFileSystem(auto_mkdir=True))

    def open_output_stream(self, path: str, metadata: Any) -> Any:
        """Open a file for writing."""
        del metadata
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        return pyarrow.PythonFile(Renamed(path), mode="w")


def whole_files() -> Any:
    """Return this file system in the form that Tune needs."""
    return PyFileSystem(WholeFiles())

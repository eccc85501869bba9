"""Read PyTorch files as plain values, compare their checksums, and refuse any other file in one sentence.

Legend: a file is a zip archive with a CRC-32 of each entry or, before PyTorch 1.6, a bare pickle without any.
"""

import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from sptskm.common.errors import DataError

_CHUNK = 2**22  # bytes read at a time
_BEGINNINGS = (
    (re.compile(rb"\s*<(!doctype|html|\?xml|head)", re.IGNORECASE), "is a web page (HTML), saved under this name"),
    (re.compile(rb"version https://git-lfs"), "is a pointer of Git LFS, not the file it stands for (git lfs pull)"),
    (re.compile(rb".{8}\{", re.DOTALL), "is a safetensors file"),
    (re.compile(rb"\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd"), "is compressed, wanted it unpacked"),
    (re.compile(rb"\x89HDF"), "is an HDF5 file"),
)


def read_torch(path: str | Path) -> Any:
    """Return the values in a PyTorch file, tensors on the CPU, without executing any code.

    Raises FileNotFoundError or another OSError that names the file when it cannot be read (its content may be good),
    and DataError when it is damaged or holds anything but plain values.
    """
    path = Path(path)
    _check_beginning(path)
    if zipfile.is_zipfile(path):
        check_archive(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise _named(error, path) from None
    except MemoryError:
        raise
    except Exception as error:  # reading a truncated or altered pickle may raise anything
        raise DataError(f"{path}: {_reason(str(error))}") from None


def check_archive(path: Path) -> None:
    """Compare the CRC-32 of every entry of a PyTorch archive; entries saved without one (CRC 0) are skipped.

    Raises DataError naming the damaged entry, OSError when the file cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if not any(entry.filename.endswith("/data.pkl") for entry in entries):
                raise DataError(f"{path}: is a zip archive of something else, wanted one that PyTorch has written")
            for entry in entries:
                if entry.CRC:
                    with archive.open(entry) as file:
                        while file.read(_CHUNK):
                            pass
    except OSError as error:
        raise _named(error, path) from None
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: is damaged ({error}), wanted it as it was written; copy it again") from None


def _check_beginning(path: Path) -> None:
    """Refuse a file that is empty, begins like another format, or is a truncated archive."""
    try:
        with path.open("rb") as file:
            first = file.read(512)
    except OSError as error:
        raise _named(error, path) from None
    if not first:
        raise DataError(f"{path}: is empty, wanted a file that PyTorch has written")
    for pattern, told in _BEGINNINGS:
        if pattern.match(first):
            raise DataError(f"{path}: {told}, wanted a file that PyTorch has written")
    if first.startswith(b"PK\x03\x04") and not zipfile.is_zipfile(path):
        raise DataError(f"{path}: is cut off (its archive has no end), wanted it whole; copy it again")


def _named(error: OSError, path: Path) -> OSError:
    """Add the file's name to an error, which reading from an open file leaves out."""
    return error if error.filename is not None else type(error)(error.errno, error.strerror, str(path))


def _reason(said: str) -> str:
    """Return the fault of a file, without PyTorch's advice to execute its content."""
    if "TorchScript" in said:
        return "is a TorchScript archive, wanted a state dict: torch.save(model.state_dict(), ...)"
    if found := re.search(r"global: GLOBAL (\S+)", said):
        return (
            f"not a plain PyTorch state dict: it holds {found.group(1)}, which reading it would have to execute; "
            "wanted torch.save(model.state_dict(), ...)"
        )
    return "not a plain PyTorch state dict, or cut off or damaged; wanted a file of torch.save(model.state_dict(), ...)"

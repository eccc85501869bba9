"""Let the C library keep the memory of freed tensors for the next ones."""

import ctypes
from contextlib import suppress

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
MAPPED_ABOVE = 2**30  # bytes; larger blocks still go back to the system at once


def keep_freed_memory() -> None:
    """Keep freed blocks of up to MAPPED_ABOVE bytes in this process, where the C library can be told so (glibc).

    By default glibc maps every block of more than 32 MiB anew, and the system clears it page by page: on a CPU a
    quarter of the time of a training step of SSIN. No result depends on it.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, MAPPED_ABOVE)
        library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)

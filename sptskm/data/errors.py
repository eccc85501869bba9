"""Re-export DataError, the error about input data."""

from sptskm.common.errors import DataError

__all__ = ["DataError"]

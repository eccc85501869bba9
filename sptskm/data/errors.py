"""Re-export the error of the data room."""

from sptskm.common.errors import DataError

__all__ = ["DataError"]

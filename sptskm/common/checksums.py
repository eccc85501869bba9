"""The checksum of TensorFlow's files: of variables in checkpoints, and of records such as TensorBoard's events."""

import google_crc32c


def masked_checksum(data: bytes) -> int:
    """Return the CRC-32C of `data` as TensorFlow stores it beside them: rotated by 15 bits, plus a constant."""
    checksum = google_crc32c.value(data)
    return (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF

"""Compute CRC-32C (Castagnoli; RFC 3720, appendix B.4) of large arrays, vectorised with numpy.

A CRC is linear over GF(2). With X = "four zero bytes follow", the register after the little-endian words
w_1 ... w_n is X^n w_1 + ... + X w_n, where w_1 already contains the register before it. Words K apart may
therefore be folded, state <- X^K state + next K words, until K = 1. X^K is two tables of 65536 entries.
"""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]

_POLYNOMIAL = 0x82F63B78  # bits reversed
_ALL_ONES = 0xFFFFFFFF
_MASK = 0xA282EAD8
# Rows of 2**14 words: the state and its temporary copies stay in the cache.
_LONGEST_ROW = 14


def crc32c(data: Any) -> int:
    """Compute the checksum of `data`: bytes, or a C-contiguous array of any type."""
    data_B: NDArray[np.uint8] = np.frombuffer(data, np.uint8)
    head = len(data_B) % 4
    register = _bytewise(_ALL_ONES, data_B[:head].tobytes())
    words = data_B[head:].view("<u4")
    if len(words):
        for exponent in range(min(_LONGEST_ROW, len(words).bit_length() - 1), -1, -1):
            words = _fold(words, exponent, register)
            register = 0
        register = int(_times(words, 0)[0])
    return register ^ _ALL_ONES


def masked(checksum: int) -> int:
    """Convert a checksum to the form that TensorFlow stores: rotated by 15 bits, plus a constant."""
    return (((checksum >> 15) | (checksum << 17)) + _MASK) & _ALL_ONES


def _fold(words: Words, exponent: int, register: int) -> Words:
    """Fold `words` and the register before them into 2**exponent words that lead to the same register."""
    row = 1 << exponent
    first = len(words) % row or row
    state: Words = np.zeros(row, np.uint32)  # zeros before the message change nothing
    state[row - first :] = words[:first]
    state[row - first] ^= np.uint32(register)
    for start in range(first, len(words), row):
        state = _times(state, exponent)
        state ^= words[start : start + row]
    return state


def _times(words: Words, exponent: int) -> Words:
    """Multiply each word by X^(2**exponent)."""
    low, high = _tables(exponent)
    product = low.take(words & 0xFFFF)
    product ^= high.take(words >> 16)
    return product


@cache
def _tables(exponent: int) -> tuple[Words, Words]:
    """Return X^(2**exponent) times every lower and every upper half of a word."""
    if exponent:
        bits = 1 << np.arange(16)
        low, high = _tables(exponent - 1)
        columns = _times(np.concatenate([low[bits], high[bits]]), exponent - 1)
    else:
        columns = np.array([_bytewise(1 << bit, bytes(4)) for bit in range(32)], np.uint32)
    return _table(columns[:16]), _table(columns[16:])


def _table(columns: Words) -> Words:
    table: Words = np.zeros(1 << len(columns), np.uint32)
    for bit, column in enumerate(columns):
        table[1 << bit : 2 << bit] = table[: 1 << bit] ^ column
    return table


def _bytewise(register: int, data: bytes) -> int:
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ (_POLYNOMIAL if register & 1 else 0)
    return register

"""Mutate arrays, archives, .mat files, pictures and PyTorch files; see `mutations` for the meaning."""

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
import scipy.io
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray

from faults.mutations import ODD, Mutation, pick, places


def strange_array(array: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Change the type, shape or a value of an array."""
    kinds: list[Callable[[], NDArray[Any]]] = [
        lambda: array[:0],
        lambda: array[..., None],
        lambda: array.reshape(-1)[:1].reshape(()),
        lambda: np.concatenate([array, array]) if array.ndim else np.stack([array, array]),
        lambda: array.T if array.ndim > 1 else array[::-1],
        lambda: np.full(array.shape, "x"),
        lambda: np.zeros(array.shape, complex),
        lambda: np.zeros(array.shape, bool),
        lambda: np.zeros(array.shape, "datetime64[s]"),
        lambda: np.zeros(array.shape, "V8"),
        lambda: np.zeros(array.shape, [("a", "i4"), ("b", "f8")]),
        lambda: np.zeros(array.shape, np.uint64) + np.uint64(2**63),
        lambda: np.full(array.shape, -3),
        lambda: np.full(array.shape, 2**62),
        lambda: array.astype(array.dtype.newbyteorder()),
        lambda: np.asfortranarray(array),
    ]
    if array.dtype.kind in "fiu" and array.size:
        kinds += [lambda value=value: _with(array, rng, value) for value in (np.nan, np.inf, -np.inf, 1e300, 1.5, -7.0)]
    return pick(rng, kinds)()


def _with(array: NDArray[Any], rng: np.random.Generator, value: float) -> NDArray[Any]:
    changed = array.astype(np.float64)
    changed.reshape(-1)[int(rng.integers(changed.size))] = value
    return changed


def npy_bytes(array: NDArray[Any]) -> bytes:
    """Return the bytes of a .npy file with this array."""
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def _npy(content: bytes, rng: np.random.Generator) -> bytes:
    return npy_bytes(strange_array(np.load(io.BytesIO(content), allow_pickle=False), rng))


def lying_header(content: bytes, rng: np.random.Generator) -> bytes:
    """Give a .npy file a header that promises far more data than it has, or that makes no sense."""
    rest = content[content.index(b"\n") + 1 :]
    shapes = [
        "(1000000000000, 14, 4)",
        "(-1, 14, 4)",
        "(14, 4, 99999999999999999999)",
        "(2, 14)",
        "14",
        "(1.5,)",
        "((2,),)",
    ]
    kinds = ["'<f4'", "'|O'", "'<f99'", "'S'", "'<U99999999'", "[('a', '<f4', 10**9)]", "'x'", "None"]
    order = pick(rng, ["True", "False", "1"])
    head = f"{{'descr': {pick(rng, kinds)}, 'fortran_order': {order}, 'shape': {pick(rng, shapes)}, }}"
    head = head.ljust(117) + "\n"
    return npy.MAGIC_PREFIX + b"\x01\0" + struct.pack("<H", len(head)) + head.encode() + rest


NPY = [Mutation("array", _npy, "value"), Mutation("lying header", lying_header, "wrong")]


def _entries(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _zipped(entries: Mapping[str, bytes], kind: int = zipfile.ZIP_STORED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", kind) as archive:
        for name, inside in entries.items():
            archive.writestr(zipfile.ZipInfo(name), inside, kind)
    return content.getvalue()


def _npz_array(content: bytes, rng: np.random.Generator) -> bytes:
    entries = _entries(content)
    name = pick(rng, sorted(entries))
    change = pick(rng, [_npy, lying_header])
    return _zipped({**entries, name: change(entries[name], rng)})


def _npz_names(content: bytes, rng: np.random.Generator) -> bytes:
    entries = _entries(content)
    name = pick(rng, sorted(entries))
    inside = entries.pop(name)
    how = int(rng.integers(4))
    if how == 1:
        entries["x.npy"] = inside
    elif how == 2:
        entries[name] = pick(rng, sorted(entries.items()))[1] if entries else b""
    elif how == 3:
        entries[name.removesuffix(".npy")] = inside
    return _zipped(entries)


def _zip_form(content: bytes, rng: np.random.Generator) -> bytes:
    entries = _entries(content)
    return _zipped(entries, pick(rng, [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_STORED]))


def _zip_fields(content: bytes, rng: np.random.Generator) -> bytes:
    """Change sizes, offsets, flags or checksums in a directory entry."""
    found = [match.start() for match in re.finditer(b"PK\x01\x02", content)]
    if not found:
        return content
    at = pick(rng, found) + pick(rng, [8, 10, 16, 20, 24, 28, 42])
    value = pick(rng, [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x01\0\0\0", rng.bytes(4)])
    return content[:at] + value + content[at + 4 :]


def _zip_bomb(content: bytes, rng: np.random.Generator) -> bytes:
    """Return an array of a gigabyte of zeros, compressed to a megabyte."""
    name = pick(rng, sorted(_entries(content)))
    head = npy_bytes(np.zeros(0, np.float64)).replace(b"(0,), ", b"(134217728,), ")[:128]
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = packer.compress(head) + b"".join(packer.compress(bytes(1 << 20)) for _ in range(1024)) + packer.flush()
    size = len(head) + (1 << 30)
    local = (
        struct.pack("<4sHHHHHIIIHH", b"PK\x03\x04", 20, 0, 8, 0, 0, 0, len(body), size, len(name), 0) + name.encode()
    )
    entry = struct.pack(
        "<4sHHHHHHIIIHHHHHII", b"PK\x01\x02", 20, 20, 0, 8, 0, 0, 0, len(body), size, len(name), 0, 0, 0, 0, 0, 0
    )
    entry += name.encode()
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 1, 1, len(entry), len(local) + len(body), 0)
    return local + body + entry + end


NPZ = [
    Mutation("array", _npz_array, "value"),
    Mutation("entries", _npz_names, "value"),
    Mutation("zip form", _zip_form, "form"),
    Mutation("zip fields", _zip_fields),
]
BOMB = Mutation("zip bomb", _zip_bomb, "wrong")


def _mat(content: bytes, rng: np.random.Generator) -> bytes:
    """Change the type, shape or value of the first variable."""
    found = {name: value for name, value in scipy.io.loadmat(io.BytesIO(content)).items() if not name.startswith("__")}
    name = next(iter(found))
    array = np.asarray(found[name])
    cells = np.empty((2, 2), object)
    cells[:] = [[array, "x"], [1.0, array]]
    kinds: list[Callable[[], Any]] = [
        lambda: cells,
        lambda: {"a": array},
        lambda: "text",
        lambda: scipy.sparse.csc_matrix(array) if array.ndim == 2 else array,
        *(lambda: strange_array(array, rng) for _ in range(8)),
    ]
    try:
        value = pick(rng, kinds)()
        written = io.BytesIO()
        scipy.io.savemat(written, pick(rng, [{name: value}, {"x": value}, {"x": 1, name: value}]))
    except (TypeError, ValueError):
        return content
    return written.getvalue()


def _mat_form(content: bytes, rng: np.random.Generator) -> bytes:
    found = {name: value for name, value in scipy.io.loadmat(io.BytesIO(content)).items() if not name.startswith("__")}
    written = io.BytesIO()
    if rng.integers(2):
        scipy.io.savemat(written, found, do_compression=True)
    else:
        scipy.io.savemat(written, found, format="4")
    return written.getvalue()


def _mat_sizes(content: bytes, rng: np.random.Generator) -> bytes:
    """Change a dimension or a number of bytes."""
    at = 128 + 4 * int(rng.integers((min(len(content), 256) - 128) // 4))
    value = pick(rng, [2**31 - 1, 2**32 - 1, 10**9, 0, 1, 15])
    return content[:at] + struct.pack("<I", value) + content[at + 4 :]


MAT = [
    Mutation("array", _mat, "value"),
    Mutation("mat form", _mat_form, "form"),
    Mutation("mat sizes", _mat_sizes),
]


def _repainted(content: bytes, rng: np.random.Generator) -> bytes:
    """Return the same picture in another format, depth or colour."""
    image = np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED))
    colour = image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    deep = image.astype(np.uint16) * 257
    pictures: list[tuple[str, NDArray[Any], list[int]]] = [
        (".png", colour, []),
        (".png", deep, []),
        (".png", cv2.cvtColor(colour, cv2.COLOR_BGR2BGRA), []),
        (".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 0]),
        (".bmp", image, []),
        (".tiff", image, []),
        (".webp", colour, []),
        (".jpg", colour, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
        (".png", image[: max(1, len(image) // 2)], []),
        (".png", image[:, :1], []),
        (".tiff", image.astype(np.float32), []),
    ]
    ending, picture, options = pick(rng, pictures)
    return cv2.imencode(ending, picture, options)[1].tobytes()


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def huge_png(_content: bytes, rng: np.random.Generator) -> bytes:
    """Return a small file that asks for gigabytes of pixels, or whose sizes are invalid."""
    width, height = pick(rng, [(30_000, 30_000), (65_500, 65_500), (2**31 - 1, 1), (0, 10), (2**32 - 1, 2**32 - 1)])
    bits, colour = pick(rng, [(1, 0), (8, 0), (8, 2), (16, 6)])
    channels = {0: 1, 2: 3, 6: 4}[colour]
    packer = zlib.compressobj(9)
    row = bytes(1 + min(width, 70_000) * bits * channels // 8)
    body = b"".join(packer.compress(row) for _ in range(min(height, 2000))) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _png_chunk(b"IHDR", head) + _png_chunk(b"IDAT", body) + _png_chunk(b"IEND", b"")


def huge_jpeg(content: bytes, rng: np.random.Generator) -> bytes:
    """Change the size in a JPEG's header."""
    at = max(content.find(b"\xff\xc0"), content.find(b"\xff\xc2"))
    if at < 0:
        return content
    sizes = struct.pack(">HH", *pick(rng, [(65_500, 65_500), (0, 10), (10, 0), (1, 1), (40_000, 40_000)]))
    return content[: at + 5] + sizes + content[at + 9 :]


IMAGE = [
    Mutation("another picture", _repainted, "value"),
    Mutation("huge or no picture", huge_png, "wrong"),
]
JPEG = [*IMAGE, Mutation("another size", huge_jpeg, "damage")]


def _torch(content: bytes, rng: np.random.Generator) -> bytes:
    """Change, retype or remove a value in a PyTorch file."""
    value = torch.load(io.BytesIO(content), weights_only=True)
    place = pick(rng, [place for place in places(value) if place])
    holder = value
    for key in place[:-1]:
        holder = holder[key]
    found = holder[place[-1]]
    how = int(rng.integers(3))
    if how == 0:
        del holder[place[-1]]
    elif how == 1 and isinstance(found, torch.Tensor):
        kinds = [found.new_full(found.shape, 1) * float("nan") if found.is_floating_point() else found + 1]
        kinds += [found[None], found.reshape(-1)[:0], found.to(torch.complex64), found.to(torch.bool), torch.zeros(())]
        kinds += [
            found.to(torch.float16),
            found.double(),
            torch.full_like(found, 3).to_sparse() if found.ndim else found,
        ]
        holder[place[-1]] = pick(rng, kinds)
    else:
        holder[place[-1]] = pick(rng, [*ODD[:-2], torch.zeros(3), 10**12])
    written = io.BytesIO()
    torch.save(value, written)
    return written.getvalue()


def _torch_form(content: bytes, rng: np.random.Generator) -> bytes:
    value = torch.load(io.BytesIO(content), weights_only=True)
    written = io.BytesIO()
    torch.save(value, written, _use_new_zipfile_serialization=bool(rng.integers(2)))
    return written.getvalue()


TORCH = [
    Mutation("content", _torch, "value"),
    Mutation("older form", _torch_form, "form"),
    Mutation("zip fields", _zip_fields),
]

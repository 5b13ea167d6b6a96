"""On-disk cache of one tensor per file: memory-mapped, checksummed, recomputed when missing or damaged."""

import contextlib
import errno
import hashlib
import json
import logging
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from cv_lab.files import replacing, write_text

log = logging.getLogger(__name__)
Rows = Callable[[], Iterator[Tensor]]  # starts anew at each call, and yields the tensor in pieces along axis 0
# The files are safetensors files, and these are that format's names; any program that knows it can read them.
DTYPES = {
    torch.uint8: "U8",
    torch.float64: "F64",
    torch.float32: "F32",
}
CHUNK = 1 << 24  # bytes that are read at once to compute a checksum


@dataclass(frozen=True)
class Mapped:
    """A tensor from a file, with what the file says of it."""

    tensor: Tensor
    facts: Any
    computed: bool  # by this call, not by an earlier one
    path: Path | None  # None if it could not be kept


def cached(
    folder: Path, key: dict[str, Any], shape: tuple[int, ...], dtype: torch.dtype, rows: Rows, facts: Callable[[], Any]
) -> Mapped:
    """Return the tensor that `key` names from `folder`, computing it first where needed; see `find_or_compute`."""
    return find_or_compute(folder / f"{name_of(key)}.safetensors", key, shape, dtype, rows, facts)


def name_of(key: dict[str, Any]) -> str:
    """Return a short hash of `key`, which holds plain values."""
    return hashlib.sha256(_text(key).encode()).hexdigest()[:24]


def find_or_compute(
    path: Path, key: dict[str, Any], shape: tuple[int, ...], dtype: torch.dtype, rows: Rows, facts: Callable[[], Any]
) -> Mapped:
    """Return the tensor in `path`; compute and write it first if it is absent, damaged or of another key.

    Processes that need the same file at once compute it once. Where it cannot be written, the tensor stays in memory.

    Args:
        path: the file.
        key: what the content depends on; plain values.
        shape: of the tensor.
        dtype: one of `DTYPES`.
        rows: yields the tensor in pieces along axis 0.
        facts: called once the rows are computed; plain values to keep in the file beside the tensor.
    """
    key = {**key, "shape": list(shape), "dtype": DTYPES[dtype]}  # a later version may arrange the same otherwise
    found = _open_or_warn(path, key)
    if found is not None:
        return found
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            found = _open_or_warn(path, key)  # another process may have written it meanwhile
            if found is None:
                _write(path, key, shape, dtype, rows, facts)
                _mark_checked(path)
                found = read(path, key)
                return Mapped(found.tensor, found.facts, True, path)
            return found
    except OSError as error:
        log.warning("%s cannot be written (%s): going on without keeping it", path, error.strerror or error)
    return Mapped(torch.cat(list(rows())), facts(), True, None)


def read(path: Path, key: dict[str, Any]) -> Mapped:
    """Map the tensor in `path`.

    The checksum of the tensor is computed when the file is opened for the first time after it was written or changed,
    not at every start: reading a large file as a whole would take longer than the first epoch.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or not of `key`.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 0 < length <= size - 8:
            raise ValueError("it is not a file of this kind, or cut off")
        try:
            header = json.loads(file.read(length))
            about, entry = header["__metadata__"], header["data"]
            end, whole = entry["data_offsets"][1], header["facts"]["data_offsets"][1]
            dtype = {name: dtype for dtype, name in DTYPES.items()}[entry["dtype"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"its header is damaged ({error!r})") from error
        if about.get("key") != _text(key):
            raise ValueError("it was computed from something else")
        if size != 8 + length + whole or end != int(np.prod(entry["shape"])) * dtype.itemsize:
            raise ValueError(f"it has {size} bytes instead of {8 + length + whole}")
        file.seek(8 + length + end)
        facts = file.read()
        if f"{zlib.crc32(facts):08x}" != about["facts_checksum"]:
            raise ValueError("the checksum of its facts is wrong")
        if not _is_checked(path):
            file.seek(8 + length)
            if f"{_checksum(file, end):08x}" != about["checksum"]:
                raise ValueError("its checksum is wrong")
            _mark_checked(path)
    content = np.memmap(path, np.uint8, "c", offset=8 + length, shape=(end,))  # copy on write: the file stays as it is
    tensor = torch.from_numpy(content).view(dtype).view(entry["shape"])
    return Mapped(tensor, json.loads(facts), False, path)


def _checksum(file: BinaryIO, size: int) -> int:
    """Return the checksum of the next `size` bytes."""
    checksum = 0
    while size and (piece := file.read(min(size, CHUNK))):
        checksum, size = zlib.crc32(piece, checksum), size - len(piece)
    return checksum


def _identity(path: Path) -> str:
    stat = path.stat()
    return f"{stat.st_ino} {stat.st_size} {stat.st_mtime_ns}"


def _is_checked(path: Path) -> bool:
    mark = path.with_suffix(".checked")
    return mark.is_file() and mark.read_text() == _identity(path)


def _mark_checked(path: Path) -> None:
    """Remember that the content of `path` was right, for as long as the file does not change."""
    with contextlib.suppress(OSError):  # a folder that may only be read
        write_text(path.with_suffix(".checked"), _identity(path))


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = FileLock(path.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("waiting for another trial, which computes %s", path.name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _open_or_warn(path: Path, key: dict[str, Any]) -> Mapped | None:
    try:
        return read(path, key)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    except ValueError as error:
        log.warning("%s is not used: %s; computing it anew", path, error)
        return None


def _write(
    path: Path, key: dict[str, Any], shape: tuple[int, ...], dtype: torch.dtype, rows: Rows, facts: Callable[[], Any]
) -> None:
    size = int(np.prod(shape)) * dtype.itemsize
    if (free := shutil.disk_usage(path.parent).free) < size:
        raise OSError(errno.ENOSPC, f"it takes {size / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free")
    with replacing(path) as temporary, open(temporary, "wb") as file:
        # The checksums are known at the end, but stand at the start: room is left for them.
        room = -(-(len(_text(key)) * 2 + 4096) // 64) * 64 - 8  # so that the tensor is aligned
        file.write(b" " * (8 + room))
        checksum, written = 0, 0
        for piece in rows():
            content = piece.contiguous().view(-1).view(torch.uint8).numpy().data
            checksum, written = zlib.crc32(content, checksum), written + len(content)
            file.write(content)
        assert written == size, "the rows do not make up the shape"
        # Facts may be long, one for each row: they are a second tensor behind the first.
        text = _text(facts()).encode()
        file.write(text)
        about = {"key": _text(key), "checksum": f"{checksum:08x}", "facts_checksum": f"{zlib.crc32(text):08x}"}
        entries = {
            "data": {"dtype": DTYPES[dtype], "shape": list(shape), "data_offsets": [0, size]},
            "facts": {"dtype": "U8", "shape": [len(text)], "data_offsets": [size, size + len(text)]},
        }
        header = json.dumps({"__metadata__": about, **entries}).encode()
        assert len(header) <= room, "the key takes more room than was left"
        file.seek(0)
        file.write(struct.pack("<Q", room) + header.ljust(room))  # not forced to disk: the checksum finds a torn file


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)

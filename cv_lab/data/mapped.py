"""What costs time to compute and is needed again: one tensor a file, memory-mapped, whole and verified or not used."""

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
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from cv_lab.files import replacing

log = logging.getLogger(__name__)
Rows = Callable[[], Iterator[Tensor]]  # starts anew at each call, and yields the tensor in pieces along axis 0
# Names in files of safetensors, which these are; any other program can read them.
DTYPES = {
    torch.uint8: "U8",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
}
CHECKED_AT_ONCE = 1 << 24  # bytes


@dataclass(frozen=True)
class Mapped:
    """A tensor from a file, with what the file says of it."""

    tensor: Tensor
    facts: dict[str, Any]
    computed: bool  # in this call, rather than found
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
    """The tensor in `path`, computed and written there first if it is absent, damaged or of another key.

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
    found = _open_or_say_why(path, key)
    if found is not None:
        return found
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            found = _open_or_say_why(path, key)  # another process may have written it meanwhile
            if found is None:
                _write(path, key, shape, dtype, rows, facts)
                found = read(path, key, verify=False)  # it was written just now
                return Mapped(found.tensor, found.facts, True, path)
            return found
    except OSError as error:
        log.warning("%s cannot be written (%s): going on without keeping it", path, error.strerror or error)
    return Mapped(torch.cat(list(rows())), facts(), True, None)


def read(path: Path, key: dict[str, Any], verify: bool = True) -> Mapped:
    """The tensor in `path`, whose checksum is looked at unless `verify` is false.

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
            begin, end = entry["data_offsets"]
            dtype = {name: dtype for dtype, name in DTYPES.items()}[entry["dtype"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"its header is damaged ({error!r})") from error
        if about.get("key") != _text(key):
            raise ValueError("it was computed from something else")
        count = int(np.prod(entry["shape"]))
        if begin != 0 or size != 8 + length + end or end != count * dtype.itemsize:
            raise ValueError(f"it has {size} bytes instead of {8 + length + end}")
        checksum = 0
        while verify and (piece := file.read(CHECKED_AT_ONCE)):
            checksum = zlib.crc32(piece, checksum)
    if verify and about["checksums"] != _checksums(checksum, about["facts"]):
        raise ValueError("its checksum is wrong")
    content = np.memmap(path, np.uint8, "c", offset=8 + length, shape=(end,))  # copy on write: the file stays as it is
    tensor = torch.from_numpy(content).view(dtype).view(entry["shape"])
    return Mapped(tensor, json.loads(about["facts"]), False, path)


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


def _open_or_say_why(path: Path, key: dict[str, Any]) -> Mapped | None:
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
        # Facts and checksums are known at the end, and stand at the start: room is left for them.
        room = -(-(len(_text(key)) * 2 + 4096) // 64) * 64 - 8  # so that the tensor is aligned
        file.write(b" " * (8 + room))
        body, written = 0, 0
        for piece in rows():
            content = piece.contiguous().view(-1).view(torch.uint8).numpy().data
            body, written = zlib.crc32(content, body), written + len(content)
            file.write(content)
        assert written == size, "the rows do not make up the shape"
        told = _text(facts())
        about = {"key": _text(key), "facts": told, "checksums": _checksums(body, told)}
        entry = {"dtype": DTYPES[dtype], "shape": list(shape), "data_offsets": [0, size]}
        header = json.dumps({"__metadata__": about, "data": entry}).encode()
        assert len(header) <= room, "facts take more room than was left"
        file.seek(0)
        file.write(struct.pack("<Q", room) + header.ljust(room))  # not forced to disk: a torn file is found out


def _checksums(body: int, facts: str) -> str:
    return f"{body:08x}-{zlib.crc32(facts.encode()):08x}"


def _text(value: dict[str, Any]) -> str:
    return json.dumps(value, sort_keys=True)

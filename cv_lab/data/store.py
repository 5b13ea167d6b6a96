"""The store of decoded pixels: images and masks of a data set are decoded once and mapped from disk ever after.

Trials that run at the same time map one copy. A file of the store is named by a hash of everything that its pixels
depend on: the image files (name, size and time), the size to which they are scaled and the versions of the readers.
"""

import contextlib
import hashlib
import io
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich import get_console
from rich.progress import track
from torch import Tensor

from cv_lab.data.mapped import cached, name_of
from cv_lab.data.pixels import READER, Fit, Photo, Pixels, opened
from cv_lab.data.problems import Problems, Unusable

log = logging.getLogger(__name__)
CHUNK = 128  # files that are decoded before they are written
Facts = dict[str, Any]
Read = Callable[[int], tuple[Pixels, Facts]]  # raises Unusable


class Stored(NamedTuple):
    """Pixels of N samples.

    Attributes:
        pixels: uint8 (N, ...); what could not be read is blank.
        facts: of each sample, as its reader gave them; "problem" holds kind and example where it could not be read.
        key: names the pixels.
    """

    pixels: Tensor
    facts: list[Facts]
    key: str

    def usable(self, problems: Problems) -> list[int]:
        """The samples that could be read; the others, and notes, are added to `problems`."""
        for facts in self.facts:
            if "problem" in facts:
                problems.drop(*facts["problem"])
            for kind, example in facts.get("dropped", ()):
                problems.drop(kind, example)
            for note in facts.get("notes", ()):
                problems.note(f"images {note}", facts["name"])
        return [number for number, facts in enumerate(self.facts) if "problem" not in facts]


def store(
    read: Read, count: int, shape: tuple[int, ...], key: dict[str, Any], cache_dir: str | Path | None, what: str
) -> Stored:
    """Read `count` samples of `shape` in threads on first use, and map them from disk ever after.

    Args:
        read: gives a sample by its number: uint8 of `shape`, and plain facts about it.
        count: N.
        shape: of a sample.
        key: what the pixels depend on, beside `shape` and the versions of the readers.
        cache_dir: where the pixels are kept, under ``pixels``; None decodes into memory.
        what: is read, for messages.
    """
    facts: list[Facts] = []

    def one(number: int) -> tuple[Pixels, Facts]:
        try:
            return read(number)
        except Unusable as error:
            return np.zeros(shape, np.uint8), {"problem": [error.kind, error.example]}

    def rows() -> Iterator[Tensor]:
        facts.clear()
        console = get_console()
        log.info("decoding %s %s", f"{count:,}", what)
        chunks = [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            begun = (pool.map(one, chunk) for chunk in chunks)
            pairs = pairwise(chain(begun, [iter(())]))  # the next chunk begins before one is awaited and written
            quiet = not console.is_terminal
            for chunk, _ in track(pairs, "decoding", len(chunks), console=console, transient=True, disable=quiet):
                pixels, told = zip(*chunk, strict=True)
                facts.extend(told)
                yield torch.from_numpy(np.stack(pixels))

    key = {**key, "reader": READER, "shape": list(shape), "pillow": version("pillow")}
    if count == 0:
        return Stored(torch.empty(0, *shape, dtype=torch.uint8), [], name_of(key))
    if cache_dir is None:
        return Stored(torch.cat(list(rows())), facts, name_of(key))
    found = cached(Path(cache_dir) / "pixels", key, (count, *shape), torch.uint8, rows, lambda: facts)
    return Stored(found.tensor, found.facts, name_of(key))


def photographs(
    files: Sequence[Path], size: tuple[int, int], fit: Fit, ground: Sequence[int], cache_dir: str | Path | None
) -> Stored:
    """Images in files at one size, uint8 (N, H, W, 3); see :meth:`~cv_lab.data.pixels.Photo.fitted`.

    Facts: see :func:`facts_of`.
    """

    def read(number: int) -> tuple[Pixels, Facts]:
        return _decoded(files[number], lambda photo: photo.fitted(size, fit, ground))

    key = {"photographs": identities(files), "fit": fit, "ground": list(ground)}
    return store(read, len(files), (*size, 3), key, cache_dir, "photographs")


def frames(count: int, size: tuple[int, int], mean: Sequence[float]) -> Pixels:
    """`count` plain images of colour `mean`, in 0..1, for others to be laid on; (count, H, W, 3)."""
    images = np.empty((count, *size, 3), np.uint8)
    images[:] = ground_of(mean)
    return images


def ground_of(mean: Sequence[float]) -> list[int]:
    """The colour `mean`, in 0..1, as 8-bit values."""
    return [round(255 * value) for value in mean]


def framed(
    files: Sequence[Path],
    size: tuple[int, int],
    mean: Sequence[float],
    cache_dir: str | Path | None,
    fit: Fit = "pad",
) -> Stored:
    """Images in frames of `size`, height and width; uint8 (N, H, W, 3).

    "pad" scales them in proportion and puts them in the upper left, "stretch" scales them to the whole frame.

    Facts: see :func:`facts_of`; and "shown", height and width that an image fills of its frame.
    """
    blank = frames(1, size, mean)[0]

    def read(number: int) -> tuple[Pixels, Facts]:
        pixels, facts = _decoded(
            files[number],
            lambda photo: photo.fitting(size) if fit == "pad" else photo.fitted(size, fit, blank[0, 0]),
        )
        frame = blank.copy()
        frame[: pixels.shape[0], : pixels.shape[1]] = pixels
        return frame, {**facts, "shown": list(pixels.shape[:2])}

    key = {"framed": identities(files), "ground": blank[0, 0].tolist(), "fit": fit}
    return store(read, len(files), (*size, 3), key, cache_dir, "images")


def facts_of(path: Path, photo: Photo, content: bytes) -> Facts:
    """What the store keeps of an image file.

    Returns:
        "name", its path; "own", upright width and height; "stored", the same as the file stores the pixels;
        "orientation", of EXIF; "notes", what was done to the pixels; "content", a hash of the file.
    """
    return {
        "name": str(path),
        "own": list(photo.size),
        "stored": list(photo.stored_size),
        "orientation": photo.orientation,
        "notes": photo.notes,
        "content": hashlib.blake2b(content, digest_size=12).hexdigest(),
    }


@contextlib.contextmanager
def unusable_if_damaged(path: Path) -> Iterator[None]:
    """Turn errors of reading an image file into `Unusable`."""
    try:
        yield
    except FileNotFoundError:
        raise Unusable("missing image files", str(path)) from None
    except ValueError as error:
        raise Unusable("damaged image files", str(error)) from error


def _decoded(path: Path, pixels_of: Callable[[Photo], Pixels]) -> tuple[Pixels, Facts]:
    with unusable_if_damaged(path):
        content = content_of(path)
        with opened(path, io.BytesIO(content)) as photo:
            pixels = pixels_of(photo)
            return pixels, facts_of(path, photo, content)


def content_of(path: Path) -> bytes:
    """Return the content of an image file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read.
    """
    if not os.path.isfile(path):  # false for names that no file can have, which pathlib raises an error for
        raise FileNotFoundError(f"there is no image {path}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error


def identities(files: Sequence[Path]) -> str:
    """A hash of names, sizes and times of `files`, which is as good as one of contents and needs no reading.

    Names are relative to the files' common folder, so that a data set may be moved.
    """
    digest = hashlib.sha256()
    names = [os.path.abspath(path) for path in files]
    folder = os.path.commonpath(map(os.path.dirname, names)) if names else ""
    for path, name in zip(files, (name[len(folder) :].lstrip("/") for name in names), strict=True):
        try:
            stat = path.stat()
        except (OSError, ValueError):  # the latter of a name that no file can have
            digest.update(f"{name} missing\n".encode(errors="surrogateescape"))
            continue
        digest.update(f"{name} {stat.st_size} {stat.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()

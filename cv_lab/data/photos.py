"""Photographs, decoded once into a memory-mapped file of uint8 pixels."""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from rich import get_console
from rich.progress import track
from torch import Tensor

from cv_lab.data.in_memory import MappedRows
from cv_lab.data.mapped import find_or_compute
from cv_lab.data.preprocess import Preprocessing

log = logging.getLogger(__name__)
AT_ONCE = 128  # files decoded before they are written


def decoded_size(image_size: int | None, preprocessing: Preprocessing, default: int) -> int:
    """Side in pixels at which photographs are decoded.

    Args:
        image_size: what the user asks for; None takes the size of the network.
        preprocessing: of the network.
        default: for a network that takes any size.

    Raises:
        ValueError: if `image_size` is not positive.
    """
    if image_size is None:
        return preprocessing.size or default
    if image_size < 1:
        raise ValueError(f"data.image_size={image_size} must be at least 1 pixel, or null for the size of the network")
    if preprocessing.size is not None and image_size < preprocessing.size:
        log.warning(
            "photographs are decoded at data.image_size=%s pixels and scaled up to the network's %s, which costs "
            "accuracy: data.image_size=null decodes them at its size",
            image_size,
            preprocessing.size,
        )
    return image_size


def decoded(files: Sequence[Path], size: int, cache_dir: str | Path | None) -> MappedRows:
    """All `files` as uint8 (N, 3, size, size), decoded in threads on first use and mapped from disk ever after.

    Files that changed, by their size or time, are decoded anew.

    Args:
        files: image files.
        size: side in pixels.
        cache_dir: where the pixels are kept, under ``photos``; None decodes into memory.

    Raises:
        ValueError: if a file is no image, or a damaged one.
    """

    def rows() -> Iterator[Tensor]:
        console = get_console()
        log.info("decoding %s photographs", f"{len(files):,}")
        chunks = [files[start : start + AT_ONCE] for start in range(0, len(files), AT_ONCE)]
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            begun = (pool.map(partial(decode, size=size), chunk) for chunk in chunks)
            pairs = pairwise(chain(begun, [iter(())]))  # the next chunk begins before one is awaited and written
            quiet = not console.is_terminal
            for chunk, _ in track(pairs, "decoding", len(chunks), console=console, transient=True, disable=quiet):
                yield torch.from_numpy(np.stack(list(chunk)))

    shape = (len(files), size, size, 3)  # channels last, as networks want them
    if cache_dir is None:
        pixels = torch.cat(list(rows()))
    else:
        key = {"files": _digest(files), "size": size, "versions": {"pillow": version("pillow")}}
        name = hashlib.sha256(repr(sorted(key.items())).encode()).hexdigest()[:24]
        path = Path(cache_dir) / "photos" / f"{name}.safetensors"
        pixels = find_or_compute(path, key, shape, torch.uint8, rows, dict).tensor
    return MappedRows(pixels.permute(0, 3, 1, 2), torch.arange(len(files)))


def decode(path: Path, size: int) -> np.ndarray:
    """An image file as uint8 (size, size, 3): its largest central square, scaled.

    Raises:
        ValueError: if the file is no image, or a damaged one.
    """
    try:
        with Image.open(path) as image:
            image.draft("RGB", (size, size))  # a JPEG is decoded at half its size or less if that suffices
            whole = image if image.mode == "RGB" else image.convert("RGB")
            side = min(whole.size)
            left, top = (whole.width - side) / 2, (whole.height - side) / 2
            box = (left, top, left + side, top + side)
            return np.asarray(whole.resize((size, size), Image.Resampling.BILINEAR, box=box))
    except (OSError, UnidentifiedImageError) as error:
        raise ValueError(f"{path} cannot be decoded as an image: {error}") from error


def _digest(files: Sequence[Path]) -> str:
    """A hash of names, sizes and times, which is as good as one of contents and needs no reading."""
    digest = hashlib.sha256()
    for path in files:
        stat = path.stat()
        digest.update(f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()

"""The store of packed files: the bytes of image files one behind the other, which each epoch decodes and crops anew."""

import io
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import RandomResizedCrop as RandomWindow

from cv_lab.data.augment import RandomResizedCrop
from cv_lab.data.mapped import cached
from cv_lab.data.pixels import READER, Box, Fit, Pixels, opened
from cv_lab.data.problems import Unusable
from cv_lab.data.store import CHUNK, Facts, Stored, content_of, facts_of, identities, unusable_if_damaged

log = logging.getLogger(__name__)
CHECKED_AT = (32, 32)  # pixels at which files are decoded to see whether they are whole: a JPEG's cheapest size


class PackedPhotos:
    """Images that are decoded when they are asked for; to be used like a tensor, uint8 (N, 3, H, W).

    Args:
        content: of all files, uint8 (bytes,).
        facts: of each file; "span" holds its first byte and the one behind its last.
        rows: int64 (N,), the files to show.
        size: height and width in pixels.
        fit: see :meth:`~cv_lab.data.pixels.Photo.fitted`.
        ground: likewise.
        crop: cut out a random window of each image instead, as training does.
    """

    ndim, dtype = 4, torch.uint8

    def __init__(
        self,
        content: Tensor,
        facts: Sequence[Facts],
        rows: Tensor,
        size: tuple[int, int],
        fit: Fit,
        ground: Sequence[int],
        crop: RandomResizedCrop | None = None,
    ) -> None:
        self.content, self.facts, self.rows = content, facts, rows
        self.size, self.fit, self.ground, self.crop = size, fit, ground, crop
        self.shape = (len(rows), 3, *size)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Tensor:
        first, *others = index if isinstance(index, tuple) else (index,)
        rows = self.rows[first]
        wanted = rows.flatten().tolist()
        boxes: list[Box | None] = [None if self.crop is None else self._window(row) for row in wanted]
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            pixels = list(pool.map(self._decode, wanted, boxes))
        images = torch.from_numpy(np.stack(pixels) if pixels else np.empty((0, *self.size, 3), np.uint8))
        images = images.permute(0, 3, 1, 2).unflatten(0, rows.shape) if rows.ndim else images[0].permute(2, 0, 1)
        return images[(slice(None), *others)] if others else images

    @property
    def nbytes(self) -> int:
        """Bytes that the decoded images would take."""
        return int(np.prod(self.shape))

    def subset(self, index: Tensor) -> "PackedPhotos":
        """The images at `index`, int64 (K,)."""
        return PackedPhotos(self.content, self.facts, self.rows[index], self.size, self.fit, self.ground, self.crop)

    def cropped(self, crop: RandomResizedCrop) -> "PackedPhotos":
        """The same images, of which each access shows other windows."""
        return PackedPhotos(self.content, self.facts, self.rows, self.size, self.fit, self.ground, crop)

    def _window(self, row: int) -> Box:
        """Draw a window of an image with torchvision's distribution; its aspect is relative to that of `size`."""
        assert self.crop is not None
        width, height = self.facts[row]["own"]
        square = self.size[1] / self.size[0]
        ratio = [square * value for value in self.crop.ratio]
        image = torch.empty(1, height, width, device="meta")
        top, left, high, wide = RandomWindow.get_params(image, list(self.crop.scale), ratio)
        return left, top, left + wide, top + high

    def _decode(self, row: int, box: Box | None) -> Pixels:
        facts = self.facts[row]
        content = io.BytesIO(self.content[slice(*facts["span"])].numpy().data)
        with opened(Path(facts["name"]), content) as photo:
            return photo.fitted(self.size, self.fit, self.ground) if box is None else photo.part(box, self.size)


def packed(files: Sequence[Path], cache_dir: str | Path | None) -> Stored:
    """The bytes of `files` one behind the other, uint8 (bytes,), written on first use and mapped ever after.

    Every file is decoded once, at a small size, to know which ones are damaged. Facts: see
    :func:`~cv_lab.data.store.facts_of`; and "span", the first byte of a file and the one behind its last.
    """
    sizes = [path.stat().st_size if path.is_file() else 0 for path in files]
    ends = np.cumsum(sizes).tolist()
    facts: list[Facts] = []

    def rows() -> Iterator[Tensor]:
        facts.clear()
        log.info("packing %s photographs, %.1f GB", f"{len(files):,}", sum(sizes) / 1e9)
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            for start in range(0, len(files), CHUNK):
                chunk = slice(start, start + CHUNK)
                read = pool.map(_read, files[chunk], sizes[chunk])
                for (content, told), size, end in zip(read, sizes[chunk], ends[chunk], strict=True):
                    facts.append({**told, "span": [end - size, end]})
                    if size:
                        yield torch.frombuffer(bytearray(content), dtype=torch.uint8)

    key = {"packed": identities(files), "reader": READER, "pillow": version("pillow")}
    if cache_dir is None or not sum(sizes):
        return Stored(torch.cat([torch.empty(0, dtype=torch.uint8), *rows()]), facts, "")
    found = cached(Path(cache_dir) / "packed", key, (sum(sizes),), torch.uint8, rows, lambda: facts)
    return Stored(found.tensor, found.facts, "")


def _read(path: Path, size: int) -> tuple[bytes, Facts]:
    """Content and facts of a file; as many zeros as it had bytes, and "problem", if it cannot be used."""
    try:
        with unusable_if_damaged(path):
            content = content_of(path)
            if len(content) != size:
                raise ValueError(f"{path} changed while it was read")
            with opened(path, io.BytesIO(content)) as photo:
                photo.fitting(CHECKED_AT)
                return content, facts_of(path, photo, content)
    except Unusable as error:
        return bytes(size), {"problem": [error.kind, error.example]}

"""Arrays of images and labels in one file, as MedMNIST (Yang et al., 2023) publishes them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cv_lab.data.base import Split
from cv_lab.data.in_memory import InMemoryImages
from cv_lab.data.label_sets import LabelledImages
from cv_lab.data.layout import contents
from cv_lab.data.photos import PhotoData
from cv_lab.text import listing

Arrays = tuple[NDArray[np.uint8], NDArray[np.integer]]


class NpzImages(PhotoData):
    """Images of one size in the arrays ``train_images``, ``train_labels``, and so for ``val`` and ``test``.

    Args:
        file: with images, uint8 (N, H, W) or (N, H, W, 3), and labels: (N,) or (N, 1) of one class an image, or (N, K)
            of 0 and 1.
        options: see :class:`~cv_lab.data.photos.PhotoData`.
    """

    targets = ("label", "labels")

    def __init__(self, file: str, **options: Any) -> None:
        super().__init__(**options)
        self.file = Path(file).expanduser()

    def fingerprint(self) -> str:
        return contents(self.file)

    def splits(self) -> tuple[Split, ...]:
        return tuple(arrays_of(self.file))

    def load(self, split: Split) -> InMemoryImages:
        """Return one split.

        Raises:
            ValueError: if its labels are not those that the task learns from.
        """
        images, labels = arrays_of(self.file)[split]
        pixels = torch.from_numpy(np.ascontiguousarray(images if images.ndim == 4 else images[..., None].repeat(3, -1)))
        several = labels.ndim == 2 and labels.shape[1] > 1
        if several != (self.target == "labels"):
            task = "multilabel" if several else "classification"
            raise ValueError(f"{self.file} has {'several labels' if several else 'one label'} an image: task={task}")
        everything = np.concatenate([some for _, some in arrays_of(self.file).values()])
        count = labels.shape[1] if several else int(everything.max()) + 1
        classes = tuple(map(str, range(count)))
        channels_first = pixels.permute(0, 3, 1, 2)
        if several:
            return LabelledImages(channels_first, torch.from_numpy(labels.astype(np.uint8)), classes)
        found = torch.from_numpy(labels.reshape(-1).astype(np.int64))
        if split == "train" and (absent := sorted(set(range(count)) - set(found.tolist()))):
            raise ValueError(f"{self.file} has classes without an image to train on: {listing(list(map(str, absent)))}")
        return InMemoryImages(channels_first, found, classes)


def arrays_of(file: Path) -> dict[Split, Arrays]:
    """Images and labels of each split of a file.

    Raises:
        ValueError: if it has no such arrays to train on, or of another type or shape.
    """
    splits: tuple[Split, ...] = ("train", "val", "test")
    try:
        with np.load(file, allow_pickle=False) as arrays:
            found = {s: (arrays[f"{s}_images"], arrays[f"{s}_labels"]) for s in splits if f"{s}_images" in arrays}
    except Exception as error:  # NumPy's reader raises errors of many kinds on damaged files
        raise ValueError(f"{file} cannot be read as an npz file: {error}") from error
    if "train" not in found:
        raise ValueError(f"{file} has no array train_images")
    for split, (images, labels) in found.items():
        right = images.dtype == np.uint8 and (images.ndim == 3 or (images.ndim == 4 and images.shape[-1] == 3))
        if (
            not right
            or not len(images)
            or len(labels) != len(images)
            or labels.ndim > 2
            or labels.dtype.kind not in "iu"
        ):
            raise ValueError(
                f"{file}: {split}_images is {images.dtype} {images.shape} and {split}_labels {labels.dtype} "
                f"{labels.shape}, but uint8 (N, H, W) or (N, H, W, 3) and whole numbers (N,) or (N, K) "
                "of at least one image are expected"
            )
    return found

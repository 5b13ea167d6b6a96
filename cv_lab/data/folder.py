"""Bring your own images: a folder of folders, one a class."""

from pathlib import Path
from typing import Any

import torch
from torchvision.datasets.folder import IMG_EXTENSIONS

from cv_lab.data.base import ImageData, Split
from cv_lab.data.in_memory import InMemoryImages
from cv_lab.data.photos import decoded, decoded_size


class ImageFolder(ImageData):
    """Images under ``root/train/CLASS/`` and ``root/test/CLASS/``, decoded once.

    Args:
        root: folder with ``train`` and ``test``.
        image_size: side in pixels; the largest central square of an image is scaled to it. None takes the size of
            the network, or 64 for one that takes any.
        cache_dir: where decoded images are kept; None decodes them in each trial.
        options: see :class:`~cv_lab.data.base.ImageData`.
    """

    mean = (0.485, 0.456, 0.406)  # of ImageNet's photographs, for want of better knowledge
    std = (0.229, 0.224, 0.225)

    def __init__(self, root: str, image_size: int | None = None, cache_dir: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.root, self.cache_dir = Path(root), cache_dir
        self.image_size = decoded_size(image_size, self.preprocessing, default=64)

    def load(self, split: Split) -> InMemoryImages:
        """Decode one split.

        Raises:
            FileNotFoundError: if the split's folder is missing, or holds no images.
            ValueError: if an image cannot be decoded, or the test set has a class that the training set lacks.
        """
        classes = _subfolders(self.root / "train")
        folder = self.root / split
        if unknown := set(_subfolders(folder)) - set(classes):
            raise ValueError(f"{folder} has classes that {self.root / 'train'} lacks: {', '.join(sorted(unknown))}")
        files = [
            (path, label)
            for label, name in enumerate(classes)
            for path in sorted((folder / name).rglob("*"))
            if path.suffix.lower() in IMG_EXTENSIONS
        ]
        if not files:
            raise FileNotFoundError(f"{folder} holds no images ({', '.join(IMG_EXTENSIONS)}) in folders of classes")
        labels = torch.tensor([label for _, label in files])
        if split == "train" and (empty := [name for k, name in enumerate(classes) if k not in labels]):
            raise ValueError(
                f"{folder} has classes without images: {', '.join(empty)}; give them some, or remove their folders"
            )
        pixels = decoded([path for path, _ in files], self.image_size, self.cache_dir)
        return InMemoryImages(pixels, labels, tuple(classes))


def _subfolders(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}: data=folder reads data.root/train and data.root/test")
    return sorted(path.name for path in folder.iterdir() if path.is_dir())

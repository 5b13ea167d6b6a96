"""Bring your own images: a folder of folders, one a class."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.v2 import functional as F

from cv_lab.data.base import ImageData
from cv_lab.data.in_memory import InMemoryImages


class ImageFolder(ImageData):
    """Images under ``root/train/CLASS/`` and ``root/test/CLASS/``, decoded once into memory.

    Args:
        root: folder with ``train`` and ``test``.
        image_size: side in pixels; images are scaled to it by their shorter side and cut at the centre.
        options: see :class:`~cv_lab.data.base.ImageData`.
    """

    mean = (0.485, 0.456, 0.406)  # of ImageNet's photographs, for want of better knowledge
    std = (0.229, 0.224, 0.225)

    def __init__(self, root: str, image_size: int = 64, **options: Any) -> None:
        super().__init__(**options)
        self.root, self.image_size = Path(root), image_size

    def load(self, train: bool) -> InMemoryImages:
        """Decode one split.

        Raises:
            FileNotFoundError: if the split's folder is missing, or holds no images.
            ValueError: if an image cannot be decoded, or the test set has a class that the training set lacks.
        """
        classes = _subfolders(self.root / "train")
        folder = self.root / ("train" if train else "test")
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
        with ThreadPoolExecutor() as pool:
            images = list(pool.map(lambda file: decode(file[0], self.image_size), files))
        labels = torch.tensor([label for _, label in files])
        return InMemoryImages(torch.stack(images), labels, tuple(classes))


def decode(path: Path, size: int) -> Tensor:
    """An image file as uint8 (3, size, size): scaled by its shorter side, cut at the centre.

    Raises:
        ValueError: if the file is no image, or a damaged one.
    """
    try:
        with Image.open(path) as image:
            pixels = F.pil_to_tensor(image.convert("RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise ValueError(f"{path} cannot be decoded as an image: {error}") from error
    return F.center_crop(F.resize(pixels, [size], antialias=True), [size])


def _subfolders(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}: data=folder reads data.root/train and data.root/test")
    return sorted(path.name for path in folder.iterdir() if path.is_dir())

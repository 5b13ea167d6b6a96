"""Bring your own masks: a folder of images and a folder of masks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torchvision.datasets.folder import IMG_EXTENSIONS

from cv_lab.data.base import Split
from cv_lab.data.in_memory import InMemoryImages
from cv_lab.data.masks import MaskData, Pair, class_names, mask_file


class MaskFolder(MaskData):
    """Images ``root/{train,test}/images/NAME.jpg`` (or another format) with masks ``root/{train,test}/masks/NAME.png``.

    A mask is a grey or palette image of its image's size whose pixels are classes, 255 meaning unlabelled.

    Args:
        root: folder with ``train`` and ``test``.
        classes: names of the labels 0, 1, 2, ...; by default the lines of ``root/classes.txt``.
        options: see :class:`~cv_lab.data.masks.MaskData`.
    """

    def __init__(self, root: str, classes: Sequence[str] | str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.root, self.given = Path(root), class_names(classes or ())

    def load(self, split: Split) -> InMemoryImages:
        folder = self.root / split
        if not (folder / "images").is_dir():
            raise FileNotFoundError(
                f"there is no folder {folder / 'images'}: data=mask_folder reads images and masks of data.root/train "
                "and data.root/test"
            )
        images = sorted(p for p in (folder / "images").iterdir() if p.suffix.lower() in IMG_EXTENSIONS)
        if not images:
            raise FileNotFoundError(f"{folder / 'images'} holds no images ({', '.join(IMG_EXTENSIONS)})")
        pairs = [Pair(image, mask_file(folder / "masks" / f"{image.stem}.png")) for image in images]
        return self.decode(pairs, self._classes())

    def _classes(self) -> Sequence[str]:
        path = self.root / "classes.txt"
        if self.given:
            return self.given
        if not path.is_file():
            raise FileNotFoundError(
                f"there is no {path}, which names a class a line: write it, or give data.classes=[background,cat,...]"
            )
        return [line for line in path.read_text().splitlines() if line]

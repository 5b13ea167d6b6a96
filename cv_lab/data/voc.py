"""Pascal VOC (Everingham et al., 2010), and whatever is laid out like it."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torchvision.datasets import VOCSegmentation

from cv_lab.data.base import Split
from cv_lab.data.in_memory import InMemoryImages
from cv_lab.data.layout import contents
from cv_lab.data.mask_files import MaskFiles
from cv_lab.data.masks import MaskData, class_names
from cv_lab.data.problems import Problems

log = logging.getLogger(__name__)

CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


def published_names(folder: Path) -> tuple[str, ...]:
    """The names of the classes in a folder of Pascal VOC as it was published, ``VOC2012``; none for other folders."""
    return CLASSES if re.fullmatch(r"VOC20(0[7-9]|1[0-2])", folder.name) else ()


class Voc(MaskData):
    """Segmentation images of ``root/VOCdevkit/VOC{year}``; the lists "train" to learn and "val" to test.

    VOC's own test set has no public masks. Its masks call the pixels along the edges of objects unlabelled.

    Args:
        root: folder of ``VOCdevkit``, or to download into.
        year: 2007 to 2012.
        classes: names of the labels 0, 1, 2, ... where they are not VOC's own.
        download: fetch the data set when it is not there.
        options: see :class:`~cv_lab.data.masks.MaskData`.
    """

    def __init__(
        self,
        root: str = "data",
        year: int = 2012,
        classes: Sequence[str] | str | None = None,
        download: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if not 2007 <= year <= 2012:
            raise ValueError(f"data.year={year}: VOC has masks for 2007 to 2012")
        self.root, self.year, self.download = Path(root), year, download
        self.class_names = class_names(classes or CLASSES)
        self.folder = self.root / "VOCdevkit" / f"VOC{year}"

    def prepare_data(self) -> None:
        """Download if needed; Lightning calls this on one process of a machine only.

        Raises:
            FileNotFoundError: if the data set is absent and `download` is false.
        """
        if self.folder.is_dir():
            return
        if not self.download:
            raise FileNotFoundError(
                f"there is no folder {self.folder}: point data.root to the folder that holds VOCdevkit, or allow the "
                "download with data.download=true"
            )
        log.info("%s is not there: downloading VOC %s", self.folder, self.year)
        VOCSegmentation(str(self.root), str(self.year), download=True)

    def fingerprint(self) -> str:
        return contents(*(self.folder / name for name in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass")))

    def load(self, split: Split) -> InMemoryImages:
        path = self.folder / "ImageSets" / "Segmentation" / f"{'train' if split == 'train' else 'val'}.txt"
        if not path.is_file():
            raise FileNotFoundError(f"there is no list of images {path}")
        images, masks = self.folder / "JPEGImages", self.folder / "SegmentationClass"
        names = path.read_text().split()
        files = MaskFiles([masks / f"{name}.png" for name in names], self.class_names)
        return self.decode([images / f"{name}.jpg" for name in names], files, self.class_names, Problems(path))

"""The trimaps of Oxford-IIIT Pet (Parkhi et al., 2012): where in a photograph the pet is."""

import logging
from pathlib import Path
from typing import Any

from cv_lab.data.base import Split
from cv_lab.data.in_memory import InMemoryImages
from cv_lab.data.mask_files import UNLABELLED, MaskFiles
from cv_lab.data.masks import MaskData
from cv_lab.data.oxford_pet import OxfordPet
from cv_lab.data.problems import Problems

log = logging.getLogger(__name__)
CLASSES = ("background", "pet")
VALUES = {1: "pet", 2: "background", 3: UNLABELLED}  # of a trimap; 3 is the border


class OxfordPetTrimaps(MaskData):
    """Photographs of cats and dogs with masks of two classes; the border between them is unlabelled.

    Args:
        root: folder of ``oxford-iiit-pet`` with ``images`` and ``annotations``, or to download into.
        download: fetch the data set when it is not there.
        train_list: name of the list under ``annotations`` to train on, without ``.txt``.
        test_list: name of the list to test on.
        options: see :class:`~cv_lab.data.masks.MaskData`.
    """

    def __init__(
        self,
        root: str = "data",
        download: bool = True,
        train_list: str = "trainval",
        test_list: str = "test",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.photographs = OxfordPet(root, download, train_list=train_list, test_list=test_list)
        self.folder = Path(root) / "oxford-iiit-pet"

    def prepare_data(self) -> None:
        """Download if needed; see :meth:`~cv_lab.data.oxford_pet.OxfordPet.prepare_data`."""
        self.photographs.prepare_data()

    def load(self, split: Split) -> InMemoryImages:
        """Decode one list.

        Raises:
            FileNotFoundError: if there is no such list, or no image of it has a trimap.
            ValueError: if files cannot be used.
        """
        names = self.photographs.names(split)
        masks = [self.folder / "annotations" / "trimaps" / f"{name}.png" for name in names]
        pairs = [
            (self.folder / "images" / f"{name}.jpg", path)
            for name, path in zip(names, masks, strict=True)
            if path.is_file()
        ]
        if not pairs:
            raise FileNotFoundError(f"there is no trimap such as {masks[0]}: delete {self.folder} to download it anew")
        if len(pairs) < len(names):
            lacking = next(path for path in masks if not path.is_file())
            counts = len(names) - len(pairs), len(names)
            log.warning("%s of %s images have no trimap and are left out, %s for one", *counts, lacking)
        images, files = zip(*pairs, strict=True)
        problems = Problems(f"{self.folder}, {split}")
        return self.decode(images, MaskFiles(files, CLASSES, VALUES), CLASSES, problems)

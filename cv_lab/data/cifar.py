"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009), read into memory; downloaded by torchvision when absent."""

import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision import datasets
from torchvision.datasets.utils import check_integrity

from cv_lab.data.base import ImageData, Split
from cv_lab.data.in_memory import InMemoryImages

log = logging.getLogger(__name__)


class _Cifar(ImageData):
    """What the two have in common.

    Args:
        root: folder of ``cifar-10-batches-py`` or ``cifar-100-python``, or to download into.
        download: fetch the data set when it is not there.
        verify_checksum: refuse files other than the published ones.
        options: see :class:`~cv_lab.data.base.ImageData`.
    """

    source: type[datasets.CIFAR10]  # torchvision's: names, checksums and the download
    label_key: str

    def __init__(self, root: str = "data", download: bool = True, verify_checksum: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.root, self.download, self.verify_checksum = root, download, verify_checksum
        self.folder = Path(root) / self.source.base_folder
        self.prepared = False

    def prepare_data(self) -> None:
        """Download if needed, and check the files; Lightning calls this on one process of a machine only.

        Raises:
            FileNotFoundError: if the data set is absent and `download` is false.
            ValueError: if a file is not the published one.
        """
        if self.prepared:  # the trial and then Lightning before each of fit and test ask for it
            return
        self.prepared = True
        meta = self.source.meta
        checksums = dict([*self.source.train_list, *self.source.test_list, (meta["filename"], meta["md5"])])
        missing = [name for name in checksums if not (self.folder / name).is_file()]
        if missing and not self.download:
            raise FileNotFoundError(
                f"{self.folder} lacks {', '.join(missing)}: point data_dir to the folder that holds "
                f"{self.source.base_folder}, or allow the download with data.download=true"
            )
        if missing:
            log.info("%s is not there: downloading %s", self.folder, self.source.url)
            self.source(self.root, download=True)
        if not self.verify_checksum:
            log.warning("%s is read without checking its checksums (data.verify_checksum=false)", self.folder)
            return
        wrong = [name for name, md5 in checksums.items() if not check_integrity(str(self.folder / name), md5)]
        if wrong:
            raise ValueError(
                f"{self.folder} holds other files than the published ones (checksums of {', '.join(wrong)} differ): "
                "delete the folder to download it anew, or accept a re-packed copy with data.verify_checksum=false"
            )

    def load(self, split: Split) -> InMemoryImages:
        files = self.source.train_list if split == "train" else self.source.test_list
        parts = [self._unpickle(name) for name, _ in files]
        images = np.concatenate([part["data"] for part in parts]).reshape(-1, 3, 32, 32)
        labels = np.concatenate([part[self.label_key] for part in parts])
        classes = self._unpickle(self.source.meta["filename"])[self.source.meta["key"]]
        return InMemoryImages(torch.from_numpy(images), torch.from_numpy(labels), tuple(classes))

    def _unpickle(self, name: str) -> dict[str, Any]:
        try:
            with open(self.folder / name, "rb") as file:
                return pickle.load(file, encoding="latin1")
        except (pickle.UnpicklingError, EOFError) as error:
            raise ValueError(
                f"{self.folder / name} is damaged ({error}): delete the folder to download it anew"
            ) from None


class Cifar10(_Cifar):
    """60,000 photographs of 32 x 32 pixels in 10 classes."""

    source, label_key = datasets.CIFAR10, "labels"
    mean = (0.4914, 0.4822, 0.4465)  # of the 50,000 training images
    std = (0.2470, 0.2435, 0.2616)


class Cifar100(_Cifar):
    """60,000 photographs of 32 x 32 pixels in 100 classes."""

    source, label_key = datasets.CIFAR100, "fine_labels"
    mean = (0.5071, 0.4865, 0.4409)  # of the 50,000 training images
    std = (0.2673, 0.2564, 0.2762)

"""Oxford-IIIT Pet (Parkhi et al., 2012): photographs of 37 breeds of cats and dogs."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torchvision import datasets

from cv_lab.data.base import Split
from cv_lab.data.in_memory import InMemoryImages
from cv_lab.data.photos import PhotoData, decoded_size
from cv_lab.data.problems import Problems

log = logging.getLogger(__name__)
SPECIES = ("cat", "dog")


class _Line(NamedTuple):
    """One line of an annotation list: ``Abyssinian_100 1 1 1``."""

    image: str
    breed: int  # from 1
    species: int  # 1 is a cat, 2 a dog


class OxfordPet(PhotoData):
    """About 200 photographs of each breed, in torchvision's layout.

    Args:
        root: folder of ``oxford-iiit-pet`` with ``images`` and ``annotations``, or to download into.
        download: fetch the data set when it is not there.
        labels: "breed" or "species" (cat or dog).
        train_list: name of the list under ``annotations`` to train on, without ``.txt``.
        test_list: name of the list to test on.
        image_size: side in pixels; the largest central square of a photograph is scaled to it. None takes the size of
            the network, or 224 for one that takes any.
        options: see :class:`~cv_lab.data.photos.PhotoData`.

    Raises:
        ValueError: if `labels` is not known.
    """

    mean = (0.488, 0.452, 0.400)  # of 482 photographs of trainval, cut and scaled as here
    std = (0.256, 0.251, 0.258)

    def __init__(
        self,
        root: str = "data",
        download: bool = True,
        labels: str = "breed",
        train_list: str = "trainval",
        test_list: str = "test",
        image_size: int | Sequence[int] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if labels not in ("breed", "species"):
            raise ValueError(f"data.labels={labels} is not known: give breed or species")
        self.root, self.download, self.label_kind = root, download, labels
        self.lists = {"train": train_list, "test": test_list}
        self.image_size = decoded_size(image_size, self.preprocessing, default=224)
        self.folder = Path(root) / "oxford-iiit-pet"

    def prepare_data(self) -> None:
        """Download if needed.

        Raises:
            FileNotFoundError: if the data set is absent and `download` is false.
        """
        missing = [name for name in ("images", "annotations") if not (self.folder / name).is_dir()]
        if missing and not self.download:
            raise FileNotFoundError(
                f"{self.folder} lacks {' and '.join(missing)}: point data_dir to the folder that holds "
                "oxford-iiit-pet, or allow the download with data.download=true"
            )
        if missing:
            log.info("%s is not there: downloading it (800 MB)", self.folder)
            datasets.OxfordIIITPet(self.root, download=True)

    def load(self, split: Split) -> InMemoryImages:
        """Decode one list.

        Raises:
            FileNotFoundError: if there is no such list, or an image of it is missing.
            ValueError: if a line is damaged, or a class of the test list has no images in the training list.
        """
        lines, trained_on = self._read(self.lists[split]), self._read(self.lists["train"])
        names = {line.breed: line.image.rpartition("_")[0].replace("_", " ").title() for line in trained_on}
        if self.label_kind == "species":
            names = dict(enumerate(SPECIES, start=1))
        ids = sorted(names)
        kinds = [line.breed if self.label_kind == "breed" else line.species for line in lines]
        for kind, line in zip(kinds, lines, strict=True):
            if kind not in names:
                raise ValueError(
                    f"{line.image} of the list {self.lists[split]} is of a class without images in "
                    f"{self.lists['train']}: train on a list that has some of each"
                )
        files = [self.folder / "images" / f"{line.image}.jpg" for line in lines]
        if missing := [path.name for path in files if not path.is_file()]:
            raise FileNotFoundError(
                f"{len(missing)} images of the list {self.lists[split]} are not in {self.folder / 'images'}, "
                f"{missing[0]} for one: delete {self.folder} to download it anew"
            )
        labels = [ids.index(kind) for kind in kinds]
        problems = Problems(f"{self.folder}, {self.lists[split]}")
        return self.decode_labelled(files, labels, [names[kind] for kind in ids], self.image_size, problems)

    def names(self, split: Split) -> list[str]:
        """The images of one list, as files are called without their endings."""
        return [line.image for line in self._read(self.lists[split])]

    def _read(self, name: str) -> list[_Line]:
        path = self.folder / "annotations" / f"{name}.txt"
        if not path.is_file():
            raise FileNotFoundError(f"there is no list {path}: give data.train_list and data.test_list names of lists")
        lines = []
        for number, text in enumerate(path.read_text().splitlines(), start=1):
            if text.startswith("#") or not text.strip():
                continue
            try:
                image, breed, species, _ = text.split()
                lines.append(_Line(image, int(breed), int(species)))
            except ValueError:
                raise ValueError(f"line {number} of {path} is not IMAGE BREED SPECIES NUMBER: {text!r}") from None
        if not lines:
            raise ValueError(f"{path} lists no images")
        return lines

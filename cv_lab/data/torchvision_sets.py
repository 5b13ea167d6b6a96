"""torchvision's data sets for image classification, by the names of their classes."""

import contextlib
import difflib
import hashlib
import inspect
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision import datasets

from cv_lab.data.base import Split
from cv_lab.data.in_memory import InMemoryImages, MappedRows
from cv_lab.data.photos import PhotoData, decoded_size
from cv_lab.data.pixels import Photo, Pixels
from cv_lab.data.problems import Problems, Unusable
from cv_lab.data.store import Facts, ground_of, store

# What torchvision's classes call each split; the first that a class knows is taken.
NAMES: Mapping[Split, tuple[str, ...]] = {
    "train": ("train", "trainval", "train-standard"),
    "val": ("val", "valid"),
    "test": ("test",),
}


class TorchvisionImages(PhotoData):
    """A data set of :mod:`torchvision.datasets` that gives an image and the number of its class.

    Splits are those of the class, by its argument ``train`` or ``split``; missing ones are held out.

    Args:
        name: of the class, ``Flowers102``.
        root: folder that holds the data set as torchvision lays it out, or receives it.
        download: fetch the data set when it is not there.
        arguments: further arguments of the class, {partition: 2}.
        image_size: of images, see :class:`~cv_lab.data.folder.ImageFolder`.
        options: see :class:`~cv_lab.data.photos.PhotoData`.

    Raises:
        ValueError: if there is no such class.
    """

    stores = ("pixels",)

    def __init__(
        self,
        name: str,
        root: str = "data",
        download: bool = True,
        arguments: Mapping[str, Any] | None = None,
        image_size: int | Sequence[int] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if name not in datasets.__all__ or not isinstance(getattr(datasets, name), type):
            near = difflib.get_close_matches(str(name), datasets.__all__, cutoff=0.4) or ["Flowers102", "DTD"]
            raise ValueError(f"data.name={name} is not a data set of torchvision: give {' or '.join(near)}, say")
        self.name, self.kind = name, getattr(datasets, name)
        self.root, self.download, self.arguments = root, download, dict(arguments or {})
        self.known: tuple[str, ...] = ()  # names of the classes, once the training set has been read
        self.image_size = decoded_size(image_size, self.preprocessing, default=64)
        self.takes = _parameters(self.kind)

    def prepare_data(self) -> None:
        """Download if needed; Lightning calls this on one process of a machine only.

        Raises:
            FileNotFoundError: if the data set is absent and `download` is false, or the class cannot download it.
        """
        try:
            _ = self.sets
        except FileNotFoundError:
            if not self.download or "download" not in self.takes:
                raise
            self._all(download=True)

    def fingerprint(self) -> str:
        """A hash of what is not published as it is, and so not downloaded: names of files, labels, arrays."""
        return "" if "download" in self.takes else self._digest(*self.sets.values())

    @cached_property
    def sets(self) -> dict[Split, Dataset[Any]]:
        """torchvision's own data set for each split that there is.

        Raises:
            FileNotFoundError: if the files are not there.
            ValueError: if the class needs other arguments.
        """
        return self._all()

    def _all(self, **more: Any) -> dict[Split, Dataset[Any]]:
        own = "train" if "train" in self.takes else "split"
        if own not in self.takes or own in self.arguments:
            return {"train": self._made(**more)}
        if own == "train":
            return {"train": self._made(train=True, **more), "test": self._made(train=False, **more)}
        found = {split: one for split in NAMES if (one := next(self._known(split, more), None)) is not None}
        if "train" not in found:
            raise ValueError(f"{self.name} has no training set: name a split, 'data.arguments={{split: NAME}}'")
        return found

    def _known(self, split: Split, more: Mapping[str, Any]) -> Iterator[Dataset[Any]]:
        """The data sets of a split, by those of its names that the class knows."""
        for name in NAMES[split]:
            try:
                yield self._made(split=name, **more)
            except ValueError as error:
                if "Unknown value" not in str(error):
                    raise

    def _made(self, **arguments: Any) -> Dataset[Any]:
        try:
            root = {"root": self.root} if "root" in self.takes else {}
            return self.kind(**{**root, **self.arguments, **arguments})
        except (RuntimeError, FileNotFoundError) as error:
            raise FileNotFoundError(
                f"{self.name} is not in {self.root} ({error}): point data.root to the folder that torchvision's class "
                "would read, or allow the download with data.download=true, if it can"
            ) from error
        except TypeError as error:
            raise ValueError(f"{self.name} cannot be made ({error}): see data.arguments") from error

    def splits(self) -> tuple[Split, ...]:
        return tuple(self.sets)

    def load(self, split: Split) -> InMemoryImages:
        """Decode one split.

        Raises:
            ValueError: if the data set does not give an image and a class.
        """
        source: Any = self.sets[split]
        if len(source) == 0:
            raise ValueError(f"{self.name}, {split}: it holds no images")
        sides = (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size
        sides, ground = self.with_margin(sides), ground_of(self.preprocessing.mean or self.mean)

        # FakeData, which has no files, draws its samples from the one generator of the process.
        alone = contextlib.nullcontext() if "root" in self.takes else threading.Lock()

        def read(number: int) -> tuple[Pixels, Facts]:
            name = f"{self.name}, {split}, number {number}"
            try:
                with alone:
                    image, label = source[number]
            except OSError as error:
                raise Unusable("damaged images", f"{name}: {error}") from error
            if not isinstance(image, Image.Image) or not isinstance(label, int | np.integer):
                raise ValueError(
                    f"{name} is {type(image).__name__} with {type(label).__name__} instead of an image with the number "
                    "of its class: take a data set for classification, or other data.arguments"
                )
            photo, content = Photo(image), hashlib.blake2b(image.tobytes(), digest_size=12).hexdigest()
            facts = {"name": name, "own": list(photo.size), "content": content, "label": int(label)}
            return photo.fitted(sides, self.fit, ground), {**facts, "notes": photo.notes}

        key = {"torchvision": self._digest(source), "fit": self.fit, "ground": ground}
        stored = store(read, len(source), (*sides, 3), key, self.cache_dir, "images of torchvision")
        labels = [facts.get("label", 0) for facts in stored.facts]
        kept = self.usable(stored, labels, sides, Problems(f"{self.name}, {split}"))
        if split == "train":
            self.known = self._classes(max(labels))
        classes = self.known or self.load("train").classes
        if max(labels) >= len(classes):
            raise ValueError(
                f"{self.name} has the class {max(labels)} in its {split} set, but {len(classes)} classes to train on"
            )
        pixels = MappedRows(stored.pixels.permute(0, 3, 1, 2), torch.tensor(kept))
        return InMemoryImages(pixels, torch.tensor([labels[number] for number in kept]), classes)

    def _classes(self, largest: int) -> tuple[str, ...]:
        """The names that the class of the training set gives, or numbers up to the `largest` label."""
        names = getattr(self.sets["train"], "classes", None)
        if isinstance(names, Sequence) and len(names) > largest:
            return tuple(" or ".join(name) if isinstance(name, tuple) else str(name) for name in names)
        if largest < 1:
            raise ValueError(f"{self.name} has one class to train on: take another data set, or other data.arguments")
        return tuple(map(str, range(largest + 1)))

    def _digest(self, *sources: Dataset[Any]) -> str:
        digest = hashlib.sha256(f"{self.name} {sorted(self.arguments.items())}".encode())
        for name, value in (item for source in sources for item in sorted(vars(source).items())):
            if isinstance(value, np.ndarray | torch.Tensor):
                digest.update(name.encode() + np.asarray(value).tobytes())
            elif not callable(value) and " at 0x" not in (text := repr(value)):  # an address, another in each process
                digest.update(f"{name} {text}".encode())
        return digest.hexdigest()[:16]


def _parameters(kind: type) -> set[str]:
    """The arguments that a class takes: its own and, where it passes others on, those of its base."""
    own = inspect.signature(kind).parameters
    passed_on = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in own.values())
    return {*own} | (_parameters(kind.__mro__[1]) if passed_on and kind is not object else set())

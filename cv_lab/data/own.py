"""Bring your own data: recognise what lies in a folder, say so, and leave it to the data module of that layout."""

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from cv_lab.data.base import TEST_FRACTION, Split
from cv_lab.data.in_memory import InMemoryImages
from cv_lab.data.mask_files import Names
from cv_lab.data.photos import PhotoData
from cv_lab.data.recognise import TASKS, Layout, numbered_masks, recognise

log = logging.getLogger(__name__)


class OwnData(PhotoData):
    """Images of one's own in any layout of :mod:`~cv_lab.data.recognise`, for any task.

    Args:
        root: a folder, or a file (CSV, npz).
        image_size: of the data module of the layout; None leaves it to that.
        classes: of masks and objects, see :class:`~cv_lab.data.mask_folder.MaskFolder` and
            :class:`~cv_lab.data.coco.Coco`.
        values: of masks.
        colours: of masks.
        instances: the class of the objects that masks number, or the class of each number; see
            :class:`~cv_lab.data.numbered_masks.NumberedMasks`.
        options: see :class:`~cv_lab.data.photos.PhotoData`.
    """

    targets = tuple(TASKS)

    def __init__(
        self,
        root: str,
        image_size: int | Sequence[int] | None = None,
        classes: Sequence[str] | str | int | None = None,
        values: Names | None = None,
        colours: Names | None = None,
        instances: str | Mapping[Any, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.root, self.options = Path(root).expanduser(), options
        own = {"image_size": image_size, "classes": classes, "values": values, "colours": colours}
        self.own = {name: value for name, value in {**own, "instances": instances}.items() if value is not None}

    @cached_property
    def layout(self) -> Layout:
        """What lies in the folder.

        Raises:
            FileNotFoundError: if there is no such folder.
            ValueError: if no layout is recognised, or it takes an option not that was given.
        """
        layout = recognise(self.root, self.target, *((numbered_masks,) if "instances" in self.own else ()))
        if unused := [f"data.{name}" for name in self.own if name not in layout.takes]:
            raise ValueError(f"{', '.join(unused)} has no effect on {layout.name} in {self.root}: leave it out")
        return layout

    @cached_property
    def inner(self) -> PhotoData:
        """The data module of the layout."""
        return self.layout.data(**{**self.layout.options, **self.own, **self.options, "target": self.target})

    def fingerprint(self) -> str:
        return self.inner.fingerprint()

    def splits(self) -> tuple[Split, ...]:
        return self.inner.splits()

    def load(self, split: Split) -> InMemoryImages:
        return self.inner.load(split)

    def files_of(self, split: Split) -> list[str]:
        return self.inner.files_of(split)

    def sizes_of(self, split: Split) -> list[tuple[int, int]]:
        return self.inner.sizes_of(split)

    def setup(self, stage: str | None = None) -> None:
        """Say what was recognised, and set up its data module."""
        if self.train is not None:
            return
        log.info("%s: %s, %s%s", self.root, self.layout.name, self.layout.about, self._held_out())
        self.inner.setup(stage)
        self.train, self.val, self.test = self.inner.train, self.inner.val, self.inner.test
        self.classes, self.problems = self.inner.classes, self.inner.problems
        self.problem_files = self.inner.problem_files

    def _held_out(self) -> str:
        splits = self.splits()
        held_out = []
        if "val" not in splits and self.validation == "split":
            held_out.append(f"{100 * self.val_fraction:g} % held out for validation")
        if "test" not in splits:
            held_out.append(f"{100 * TEST_FRACTION:g} %{'' if held_out else ' held out'} for the test")
        return f": {' and '.join(held_out)}" if held_out else ""

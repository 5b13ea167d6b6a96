"""Bring your own labels: a table with a row for each image."""

import csv
import io
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cv_lab.data.base import Split
from cv_lab.data.in_memory import InMemoryImages
from cv_lab.data.label_sets import LabelledImages
from cv_lab.data.layout import SPLITS, contents, image_files
from cv_lab.data.photos import PhotoData, decoded_size
from cv_lab.data.problems import Problems
from cv_lab.text import listing

FILE_COLUMNS = ("file", "filename", "file_name", "image", "image_id", "path", "filepath", "name")
LABEL_COLUMNS = ("label", "labels", "tags", "class")
SPLIT_OF: dict[str, Split] = {name: split for split, names in SPLITS.items() for name in names}


@dataclass(frozen=True)
class Labelled:
    """What a table says.

    Attributes:
        files: N image files.
        labels: the labels of each.
        classes: all labels, K names.
        splits: "train", "val" or "test" of each; None if the table has no splits.
    """

    files: list[Path]
    labels: list[tuple[str, ...]]
    classes: tuple[str, ...]
    splits: list[Split] | None


class LabelsCsv(PhotoData):
    """Images that a CSV file names, with their labels: any number for each image, or exactly one for classification.

    Labels stand in one column, several of them separated, or in a column of 0 and 1 for each label. A column of splits
    says which images train, validate and test; sets that it does not name are held out from the training set.

    Args:
        csv: the table, separated by commas, semicolons or tabs, with a header.
        root: folder that files are named from; None takes that of the table.
        file_column: None takes the first of `FILE_COLUMNS` that the table has.
        labels: name of the column of labels, or of the columns of 0 and 1; None takes the first of `LABEL_COLUMNS` that
            the table has, or else all columns but those of files and splits.
        separator: between labels in a cell; None takes ";" and "|", " " takes any white space.
        split_column: None takes the one called "split", or else one that holds the names of splits alone.
        image_size: side in pixels; the largest central square of an image is scaled to it. None takes the size of
            the network, or 64 for one that takes any.
        options: see :class:`~cv_lab.data.photos.PhotoData`.
    """

    targets = ("label", "labels")

    def __init__(
        self,
        csv: str,
        root: str | None = None,
        file_column: str | None = None,
        labels: str | Sequence[str] | None = None,
        separator: str | None = None,
        split_column: str | None = None,
        image_size: int | Sequence[int] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.csv = Path(csv).expanduser()
        self.root = self.csv.parent if root is None else Path(root).expanduser()
        self.columns = (file_column, labels, split_column)
        if separator is not None and (not isinstance(separator, str) or not separator):
            raise ValueError(f"data.separator={separator} must be text: ';' or ' ', say")
        self.separator = separator
        self.image_size = decoded_size(image_size, self.preprocessing, default=64)
        self._table: Labelled | None = None

    @property
    def table(self) -> Labelled:
        """What the table says, read once."""
        if self._table is None:
            self._table = read_labels(self.csv, self.root, *self.columns, self.separator)
            if self.target == "label":
                _check_single(self.csv, self._table)
        return self._table

    def splits(self) -> tuple[Split, ...]:
        named = set(self.table.splits or ["train"])
        if "train" not in named:
            raise ValueError(f"{self.csv} has no row of the split train, but of {', '.join(sorted(named))}: add some")
        return tuple(split for split in SPLITS if split in named)

    def fingerprint(self) -> str:
        return contents(self.csv, *self.table.files)

    def load(self, split: Split) -> InMemoryImages:
        """Decode the images of one split.

        Raises:
            FileNotFoundError: if the table or all images are missing.
            ValueError: if the table or all images cannot be used.
        """
        table = self.table
        splits = np.array(table.splits or ["train"] * len(table.files))
        rows = np.flatnonzero(splits == split).tolist()
        label_sets = torch.tensor([[name in table.labels[row] for name in table.classes] for row in rows]).byte()
        problems = Problems(f"{self.csv}, {split}")
        files, labels = [table.files[row] for row in rows], [table.labels[row] for row in rows]
        images, kept = self.decode_files(files, labels, self.image_size, problems)
        label_sets = label_sets[kept]
        if self.target == "labels":
            return LabelledImages(images, label_sets, table.classes)
        if split == "train" and len(absent := np.flatnonzero(label_sets.sum(0, dtype=torch.long) == 0)):
            names = [table.classes[k] for k in absent]
            raise ValueError(f"{self.csv} has classes without an image to train on: {listing(names)}")
        return InMemoryImages(images, label_sets.argmax(1), table.classes)


def read_labels(
    path: Path,
    root: Path,
    file_column: str | None = None,
    labels: str | Sequence[str] | None = None,
    split_column: str | None = None,
    separator: str | None = None,
) -> Labelled:
    """Read a table of labels; the arguments are those of :class:`LabelsCsv`.

    Raises:
        FileNotFoundError: if the table or all of its image files are missing; one by one they are dropped later.
        ValueError: if a column is missing, a cell cannot be read, or a file stands in several rows.
    """
    header, rows = _read_table(path)
    file_at = _column(path, header, file_column, FILE_COLUMNS, "file_column")
    if file_at is None:
        raise ValueError(
            f"{path} has no column of files among {listing(header)}: call one {FILE_COLUMNS[0]}, or give "
            "data.file_column"
        )
    split_at = _column(path, header, split_column, ("split",), "split_column")
    if split_at is None:
        columns = [k for k, name in enumerate(header) if k != file_at and name.lower() not in LABEL_COLUMNS]
        split_at = next((k for k in columns if _holds_splits([row[k] for row in rows])), None)
    files = _located(root, [row[file_at].strip() for row in rows])
    if twice := [str(file) for file, count in Counter(files).items() if count > 1]:
        raise ValueError(
            f"{path} has several rows for {listing(twice)}: give each image one row with all of its labels"
        )
    if not any(file.is_file() for file in files):
        raise FileNotFoundError(f"none of the {len(files)} files of {path} exists: {listing(list(map(str, files)))}")
    splits = None if split_at is None else _splits(path, [row[split_at] for row in rows])
    label_at = None
    if labels is None or isinstance(labels, str):
        label_at = _column(path, header, labels, LABEL_COLUMNS, "labels")
    if label_at is not None:
        given = [_labels(row[label_at], separator) for row in rows]
        return Labelled(files, given, _ordered({name for some in given for name in some}, path), splits)
    if isinstance(labels, str) or labels is None:
        columns = [k for k in range(len(header)) if k not in (file_at, split_at)]
    else:
        columns = [_known(path, header, name, "labels") for name in labels]
    return _one_hot(path, header, rows, columns, files, splits)


def _one_hot(
    path: Path,
    header: list[str],
    rows: list[list[str]],
    columns: list[int],
    files: list[Path],
    splits: list[Split] | None,
) -> Labelled:
    """The table of which `columns` hold 0 and 1."""
    if not columns:
        raise ValueError(f"{path} has no column of labels: call it label, or add a column of 0 and 1 for each label")
    values = {"0": False, "0.0": False, "1": True, "1.0": True}
    for k in columns:
        if wrong := [f"{row[k]!r}" for row in rows if row[k].strip() not in values]:
            raise ValueError(
                f"the column {header[k]} of {path} holds {listing(list(dict.fromkeys(wrong)))} where 0 or 1 is "
                "expected: give data.labels, the column of labels or a list of the columns of 0 and 1"
            )
    given = [tuple(header[k] for k in columns if values[row[k].strip()]) for row in rows]
    return Labelled(files, given, tuple(header[k] for k in columns), splits)


def _read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a CSV file, whose delimiter is the one that most of the header's columns are split by."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no table {path}: give data.csv=FILE")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not in UTF-8 ({error.reason}): save it in this encoding") from error
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    lines = [
        row
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        if any(cell.strip() for cell in row)
    ]
    if len(lines) < 2:
        raise ValueError(f"{path} has no rows below a header")
    header, rows = [name.strip() for name in lines[0]], lines[1:]
    if twice := [name for name, count in Counter(header).items() if count > 1]:
        raise ValueError(f"{path} has several columns called {listing(twice)}: give each a name of its own")
    if wrong := [str(number) for number, row in enumerate(rows, 1) if len(row) != len(header)]:
        raise ValueError(f"{path} has {len(header)} columns, but not in its rows {listing(wrong)}")
    return header, rows


def _column(path: Path, header: list[str], name: str | None, usual: Sequence[str], option: str) -> int | None:
    """The column called `name`, or the first with one of the `usual` names in any case; None without one."""
    if name is not None:
        return _known(path, header, name, option)
    lower = [column.lower() for column in header]
    return next((lower.index(known) for known in usual if known in lower), None)


def _known(path: Path, header: list[str], name: str, option: str) -> int:
    if name not in header:
        raise ValueError(f"data.{option}={name} is not a column of {path}, which has {listing(header)}")
    return header.index(name)


def _located(root: Path, names: Sequence[str]) -> list[Path]:
    """Files in `root`; a name may have ``\\`` for ``/``, or lack the suffix of the one image that it can mean."""
    files = [root / name if (root / name).is_file() else root / name.replace("\\", "/") for name in names]
    if all(file.is_file() for file in files):
        return files
    found = defaultdict(list)
    for image in image_files(root) if root.is_dir() else ():
        found[image.with_suffix("")].append(image)
    return [file if file.is_file() or len(found[file]) != 1 else found[file][0] for file in files]


def _holds_splits(cells: list[str]) -> bool:
    """Whether a column divides images into sets, whatever it is called."""
    named = {SPLIT_OF.get(cell.strip().lower()) for cell in cells}
    return None not in named and "train" in named and len(named) > 1


def _splits(path: Path, cells: list[str]) -> list[Split]:
    if wrong := [f"{cell!r}" for cell in dict.fromkeys(cells) if cell.strip().lower() not in SPLIT_OF]:
        raise ValueError(f"{path} has the splits {listing(wrong)}, but they must be train, val (or valid) and test")
    return [SPLIT_OF[cell.strip().lower()] for cell in cells]


def _labels(cell: str, separator: str | None) -> tuple[str, ...]:
    if separator is None:
        parts = re.split(r"[;|]", cell)
    else:
        parts = cell.split() if separator.isspace() else cell.split(separator)
    return tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))


def _ordered(names: set[str], path: Path) -> tuple[str, ...]:
    """`names` in order; whole numbers by their size."""
    if not names:
        raise ValueError(f"{path} has no label in any row")
    return tuple(sorted(names, key=int if all(name.isdecimal() for name in names) else None))


def _check_single(path: Path, table: Labelled) -> None:
    wrong = [f"{file} ({len(some)})" for file, some in zip(table.files, table.labels, strict=True) if len(some) != 1]
    if wrong:
        raise ValueError(
            f"classification needs one label for each image, but {len(wrong)} of {len(table.files)} images of {path} "
            f"have none or several: {listing(wrong)}. Give them one, or task=multilabel"
        )

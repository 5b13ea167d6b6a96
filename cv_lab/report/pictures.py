"""What trials left in ``predictions/``: galleries, confusion matrices, and figures of each class."""

import base64
import io
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cv_lab.report.sections import Section
from cv_lab.study.confusion import most_confused
from cv_lab.study.read import read_table
from cv_lab.study.record import UnreadableError
from cv_lab.study.trials import Trial, number

SHOWN = 4  # settings whose pictures are in the report; those of others stay in their folders
WIDTH = 1120  # pixels of a picture in the report; the full one stays in the trial's folder
CLASSES = 8  # settings beside each other in a table of classes
PAIRS = 8  # mistakes listed of each matrix
FIRST = ("gallery.png", "confusion_matrix.png")  # pictures that come before the others


@dataclass(frozen=True)
class Picture:
    """A picture of a trial, ready for a page, with the path of the full one in the study's folder."""

    title: str
    uri: str
    path: str
    width: int
    height: int


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix: its trial, its classes, its counts (K, K) with the truth in rows."""

    trial: Trial
    classes: list[str]
    counts: NDArray[np.int64]

    def pairs(self) -> list[tuple[str, str, int, float]]:
        """The most confused pairs, see :func:`~cv_lab.study.confusion.most_confused`."""
        return most_confused(self.counts, self.classes, PAIRS)


def representatives(section: Section, limit: int) -> list[Trial]:
    """The best trial of each of the best settings."""
    return [setting.trials[0] for setting in section.judged[:limit]]


def pictures(study: Path, trial: Trial, notes: list[str]) -> list[Picture]:
    """All pictures in the trial's ``predictions/``, the gallery first; what cannot be read is noted."""
    folder = trial.folder / "predictions"
    order = {name: i for i, name in enumerate(FIRST)}
    found = []
    for path in sorted(folder.glob("*.png"), key=lambda path: (order.get(path.name, len(order)), path.name)):
        try:
            found.append(_picture(path, path.relative_to(study).as_posix()))
        except (OSError, ValueError) as error:  # of Pillow for a damaged file
            notes.append(f"{path.name} of {trial.name} is left out: {error}.")
    return found


def matrix(trial: Trial, notes: list[str]) -> Matrix | None:
    """The trial's confusion matrix, if it wrote one; a damaged one is noted."""
    path = trial.folder / "predictions" / "confusion_matrix.csv"
    if not path.exists():
        return None
    try:
        rows = read_table(path)
        classes = [row["truth"] for row in rows]
        counts = np.array([[int(row[name]) for name in classes] for row in rows], dtype=np.int64)
        if not rows or counts.min() < 0:
            raise UnreadableError("confusion_matrix.csv is damaged (no counts)")
    except (KeyError, ValueError, OverflowError, OSError) as error:
        what = error if isinstance(error, UnreadableError) else f"confusion_matrix.csv is damaged ({error})"
        notes.append(f"{trial.name} is shown without its confusion matrix: {what}.")
        return None
    return Matrix(trial, classes, counts)


def per_class(trial: Trial, notes: list[str]) -> dict[str, dict[str, float]]:
    """Figures of each class: from metrics called ``test/FIGURE/CLASS``, and from tables with a column "class".

    Returns:
        values by class, by the name of the figure.
    """
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for key, value in ((trial.result or {}).get("metrics") or {}).items():
        split, _, rest = key.partition("/")
        figure, _, name = rest.partition("/")
        if split == "test" and name and (known := number(value)) is not None:
            found[figure][name] = known
    for path in sorted((trial.folder / "predictions").glob("*.csv")):
        try:
            rows = read_table(path)
            if not rows or "class" not in rows[0]:
                continue
            for row in rows:
                for column, cell in row.items():
                    if column != "class" and cell:
                        found[column].setdefault(row["class"], float(cell))
        except (ValueError, OSError) as error:
            what = error if isinstance(error, UnreadableError | OSError) else f"{path.name} is damaged ({error})"
            notes.append(f"{trial.name} is shown without {path.name}: {what}.")
    return {figure: {c: v for c, v in values.items() if number(v) is not None} for figure, values in found.items()}


def _picture(path: Path, link: str) -> Picture:
    """Reduced and compressed, since a page with ten galleries as they are weighs 10 MB; with the file's own title."""
    from PIL import Image

    with Image.open(path) as opened:
        title = str(opened.info.get("Title") or path.stem.replace("_", " "))
        image = opened.convert("RGB")
    if image.width > WIDTH:
        image = image.resize((WIDTH, max(1, round(image.height * WIDTH / image.width))), Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=80, method=2)
    uri = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Picture(title, uri, link, image.width, image.height)

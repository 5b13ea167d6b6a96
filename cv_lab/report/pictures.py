"""What trials left in ``predictions/``: galleries, confusion matrices, and figures of each class."""

import base64
import io
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from cv_lab.report.sections import Section
from cv_lab.study.read import read_table
from cv_lab.study.record import UnreadableError
from cv_lab.study.trials import Trial, number

SHOWN = 4  # settings whose pictures are in the report; those of others stay in their folders
WIDTH = 1120  # pixels of a picture in the report; the full one stays in the trial's folder
CLASSES = 8  # settings beside each other in a table of classes
PICTURES = {
    "gallery.png": "predictions for validation images",
    "confusion_matrix.png": "confusion matrix of the test set",
}
TITLES = {
    "gallery_last_epoch.png": "predictions of the last epoch for validation images",
    "iou.png": "intersection over union of each class",
    "best.png": "test images that come out best",
    "worst.png": "test images that the network is most wrong about",
    "average_precision.png": "average precision of each class",
    "precision_recall.png": "precision and recall of each class",
}


@dataclass(frozen=True)
class Picture:
    """A picture of a trial, ready for a page, with the path of the full one in the study's folder."""

    title: str
    uri: str
    path: str
    width: int
    height: int


def representatives(section: Section, limit: int) -> list[Trial]:
    """One trial of each of the best settings: of the lowest seed that has predictions, since the best would flatter."""
    return [
        next((trial for trial in setting.finished if (trial.folder / "predictions").is_dir()), setting.example)
        for setting in section.judged[:limit]
    ]


def pictures(study: Path, trial: Trial, notes: list[str]) -> list[Picture]:
    """All pictures in the trial's ``predictions/``, the gallery first; what cannot be read is noted."""
    folder = trial.folder / "predictions"
    order = {name: i for i, name in enumerate([*PICTURES, *TITLES])}
    found = []
    for path in sorted(folder.glob("*.png"), key=lambda path: (order.get(path.name, len(order)), path.name)):
        title = (PICTURES | TITLES).get(path.name, path.stem.replace("_", " "))
        try:
            found.append(_picture(path, title, path.relative_to(study).as_posix()))
        except (OSError, ValueError) as error:  # of Pillow for a damaged file
            notes.append(f"{path.name} of {trial.name} is left out: {error}.")
    return found


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


def _picture(path: Path, title: str, link: str) -> Picture:
    """Reduced and compressed, since a page with ten galleries as they are weighs 10 MB."""
    from PIL import Image

    with Image.open(path) as opened:
        image = opened.convert("RGB")
    if image.width > WIDTH:
        image = image.resize((WIDTH, max(1, round(image.height * WIDTH / image.width))), Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=80, method=2)
    uri = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Picture(title, uri, link, image.width, image.height)

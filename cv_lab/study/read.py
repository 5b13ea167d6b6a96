"""The trials of a study as their folders tell it, and what could not be read in them."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cv_lab.files import read_json
from cv_lab.study.record import SCHEMA
from cv_lab.study.trials import Trial, number

FIGURES = "figures"  # in a study's folder; the others are trials


@dataclass(frozen=True)
class Study:
    """What a study's folder holds.

    Attributes:
        folder: of the study.
        trials: the readable ones, best first.
        notes: what was left out, and why, one sentence each.
    """

    folder: Path
    trials: list[Trial]
    notes: list[str]


class UnreadableError(ValueError):
    """A file is damaged, or of another version."""


def read_study(folder: Path) -> Study:
    """Read all trials of a study; what cannot be read is noted and left out.

    Raises:
        FileNotFoundError: if the folder is not there, or holds no folder that could be a trial.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder: give the folder of a study, such as studies/NAME")
    if (folder / "trial.json").exists():
        raise FileNotFoundError(f"{folder} is a trial: give the folder of its study, {folder.parent}")
    trials: list[Trial] = []
    notes: list[str] = []
    for path in sorted(folder.iterdir()):
        if not path.is_dir() or path.name.startswith(".") or path.name == FIGURES:
            continue
        try:
            trials.append(read_trial(path, notes))
        except (UnreadableError, OSError) as error:
            notes.append(f"{path.name} is left out: {error}.")
    if not trials and not notes:
        raise FileNotFoundError(f"{folder} holds no trials: give the folder of a study, such as studies/NAME")
    return Study(folder, sorted(trials, key=lambda trial: (-trial.score, trial.name)), notes)


def read_table(path: Path) -> list[dict[str, str]]:
    """A CSV file's rows by column, as text.

    Raises:
        UnreadableError: if it is no CSV of text.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UnreadableError(f"{path.name} is damaged ({error})") from error
    if any(None in row or None in row.values() for row in rows):
        raise UnreadableError(f"{path.name} is damaged (a row is longer or shorter than the header)")
    return rows


def read_trial(folder: Path, notes: list[str]) -> Trial:
    """Read a trial's folder; what else than ``trial.json`` cannot be read is added to `notes` and left out.

    Raises:
        UnreadableError: if ``trial.json`` is missing or damaged.
        OSError: if it cannot be opened.
    """
    if not (folder / "trial.json").exists():
        raise UnreadableError("it holds no trial.json")
    record = _read_object(folder / "trial.json")
    if not isinstance(record.get("parameters"), dict) or not isinstance(record.get("status"), str):
        raise UnreadableError("trial.json lacks its parameters or its status")
    result = None
    try:
        if (folder / "result.json").exists():
            result = _checked(_read_object(folder / "result.json"))
        elif record["status"] == "completed":
            notes.append(f"{folder.name} is completed, but has no result.json: it is shown without its figures.")
    except UnreadableError as error:
        notes.append(f"{folder.name} is shown without its figures: {error}.")
    return Trial(folder, record, result, _read_epochs(folder / "metrics.csv", notes))


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
    except ValueError as error:  # of JSON and of UTF-8
        raise UnreadableError(f"{path.name} is damaged ({error})") from error
    if not isinstance(value, dict):
        raise UnreadableError(f"{path.name} is damaged (it holds no JSON object)")
    if value.get("schema") != SCHEMA:
        raise UnreadableError(
            f"{path.name} was written by another version of the lab (schema {value.get('schema')}, {SCHEMA} is known)"
        )
    return value


def _checked(result: dict[str, Any]) -> dict[str, Any]:
    """A result whose parts that everything else relies on have the right types."""
    monitor = result.get("monitor")
    right = (
        isinstance(monitor, dict)
        and isinstance(monitor.get("name"), str)
        and monitor.get("mode") in ("min", "max")
        and isinstance(result.get("metrics"), dict)
        and isinstance(result.get("seconds"), dict)
        and number(result["seconds"].get("fit")) is not None
    )
    if not right:
        raise UnreadableError("result.json lacks its monitor, metrics or seconds")
    assert isinstance(monitor, dict)
    return {**result, "monitor": {**monitor, "best": number(monitor.get("best"))}}


def _read_epochs(path: Path, notes: list[str]) -> list[dict[str, float]]:
    if not path.exists():
        return []
    try:
        return [{name: float(cell) for name, cell in row.items() if cell} for row in read_table(path)]
    except ValueError as error:
        what = error if isinstance(error, UnreadableError) else f"metrics.csv is damaged ({error})"
        notes.append(f"{path.parent.name} is shown without its curves: {what}.")
    return []

"""Read a study: its trials as their folders describe them, and what could not be read in them."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cv_lab.study.record import FINGERPRINT, UnreadableError, read_object
from cv_lab.study.trials import Trial, number, varying_parameters

if TYPE_CHECKING:
    from pandas import DataFrame

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

    def to_pandas(self) -> "DataFrame":
        """One row a trial, best first: its name and status, its parameters, and its metrics.

        Raises:
            ImportError: if pandas is not installed.
        """
        try:
            from pandas import DataFrame
        except ImportError as error:
            raise ImportError("to_pandas() needs pandas: pip install pandas") from error
        return DataFrame([{"name": t.name, "status": t.status, **t.parameters, **t.metrics} for t in self.trials])


def read_study(folder: str | Path) -> Study:
    """Read all trials of a study; what cannot be read is noted and left out.

    Beside their recorded parameters, trials get as parameters the values of the config in which they differ all the
    same, such as one that only an experiment's file sets.

    Raises:
        FileNotFoundError: if the folder is not there, or holds no folder that could be a trial.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder: give the folder of a study, such as studies/NAME")
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
    trials = sorted(trials, key=lambda trial: (-trial.score, trial.name))
    return Study(folder, _with_differing_values(_without_copies(trials, notes)), notes)


def read_trial(folder: Path, notes: list[str]) -> Trial:
    """Read a trial's folder; what else than ``trial.json`` cannot be read is added to `notes` and left out.

    Raises:
        UnreadableError: if ``trial.json`` is missing or damaged.
        OSError: if it cannot be opened.
    """
    if not (folder / "trial.json").exists():
        raise UnreadableError("it holds no trial.json")
    record = read_object(folder / "trial.json")
    if not isinstance(record.get("parameters"), dict) or not isinstance(record.get("status"), str):
        raise UnreadableError("trial.json lacks its parameters or its status")
    if record.get("monitor") is not None and not _is_monitor(record["monitor"]):
        raise UnreadableError("trial.json is damaged (in monitor)")
    overrides = record.get("overrides")
    record["overrides"] = overrides if isinstance(overrides, list) else []
    result = None
    try:
        if (folder / "result.json").exists():
            result = _checked(read_object(folder / "result.json"))
        elif record["status"] == "completed":
            notes.append(f"{folder.name} is completed, but has no result.json: it is shown without its figures.")
    except (UnreadableError, OSError) as error:
        notes.append(f"{folder.name} is shown without its figures: {error}.")
    return Trial(folder, record, result, _read_epochs(folder / "metrics.csv", notes))


def read_table(path: Path) -> list[dict[str, str]]:
    """Read a CSV file's rows by column, as text.

    Raises:
        UnreadableError: if it is not a CSV of text.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UnreadableError(f"{path.name} is damaged ({error})") from error
    if any(None in row or None in row.values() for row in rows):
        raise UnreadableError(f"{path.name} is damaged (a row is longer or shorter than the header)")
    return rows


def _without_copies(trials: Sequence[Trial], notes: list[str]) -> list[Trial]:
    """Leave out trials that are in the study already, under another name: two of them would count as two seeds."""
    first: dict[str, Trial] = {}
    for trial in trials:
        identity = str(trial.record.get("identity") or trial.name)
        if identity in first:
            notes.append(f"{trial.name} is left out: it is the same trial as {first[identity].name}.")
        first.setdefault(identity, trial)
    return list(first.values())


def _with_differing_values(trials: Sequence[Trial]) -> list[Trial]:
    """Add to the trials' parameters the values of their configs in which they differ beyond them."""
    configs = [config if isinstance(config := t.record.get("config"), dict) else {} for t in trials]
    if len(trials) < 2 or not all(configs):
        return list(trials)
    names = varying_parameters(trials)
    differing = []
    for key in dict.fromkeys(key for config in configs for key in config):
        values = [config.get(key) for config in configs]
        if len({json.dumps(value) for value in values}) == 1 or key in names:
            continue
        if key == FINGERPRINT and _is_implied(values, configs):
            continue
        follows_group = key.partition(".")[0] in names  # as the options of another optimizer do
        copies = any(all(v == t.parameters.get(n) for v, t in zip(values, trials, strict=True)) for n in names)
        if not follows_group and not copies:
            differing.append(key)
    return [
        replace(
            trial,
            record={**trial.record, "parameters": {**{key: config.get(key) for key in differing}, **trial.parameters}},
        )
        for trial, config in zip(trials, configs, strict=True)
    ]


def _is_implied(fingerprints: Sequence[Any], configs: Sequence[dict[str, Any]]) -> bool:
    """Whether the trials' options of the data say the same; else files have changed, beside what else was varied."""

    def options(config: dict[str, Any]) -> str:
        chosen = {key: value for key, value in config.items() if key.startswith("data.") or key == "task._target_"}
        return str(sorted((chosen | {FINGERPRINT: None}).items()))

    pairs = set(zip(map(options, configs), map(str, fingerprints), strict=True))
    return len(pairs) == len({text for text, _ in pairs})


def _checked(result: dict[str, Any]) -> dict[str, Any]:
    """Check that the parts of a result which everything else relies on have the right types."""
    monitor = result.get("monitor")
    right = (
        _is_monitor(monitor)
        and isinstance(result.get("metrics"), dict)
        and isinstance(result.get("seconds"), dict)
        and number(result["seconds"].get("fit")) is not None
    )
    if not right:
        raise UnreadableError("result.json lacks its monitor, metrics or seconds")
    assert isinstance(monitor, dict)
    return {**result, "monitor": {**monitor, "best": number(monitor.get("best"))}}


def _is_monitor(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("name"), str) and value.get("mode") in ("min", "max")


def _read_epochs(path: Path, notes: list[str]) -> list[dict[str, float]]:
    if not path.exists():
        return []
    try:
        return [{name: float(cell) for name, cell in row.items() if cell} for row in read_table(path)]
    except (ValueError, OSError) as error:
        what = error if isinstance(error, UnreadableError) else f"metrics.csv is damaged ({error})"
        notes.append(f"{path.parent.name} is shown without its curves: {what}.")
    return []

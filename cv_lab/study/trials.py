"""A study: the trials in one folder, as a table. Reads their files alone, without torch or Lightning."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cv_lab.config import split_override
from cv_lab.files import read_json


@dataclass(frozen=True)
class Trial:
    """One trial as its folder tells it: ``trial.json``, and ``result.json`` if it is completed."""

    folder: Path
    record: dict[str, Any]
    result: dict[str, Any] | None

    @property
    def score(self) -> float:
        """Best value of the monitored metric, turned so that larger is better; -inf without a result."""
        if self.result is None or self.result["monitor"]["best"] is None:
            return -math.inf
        monitor = self.result["monitor"]
        return monitor["best"] if monitor["mode"] == "max" else -monitor["best"]


AnyTrial = TypeVar("AnyTrial", bound=Trial)


def read_trial(folder: Path) -> Trial:
    """The trial in `folder`."""
    result = folder / "result.json"
    return Trial(folder, read_json(folder / "trial.json"), read_json(result) if result.exists() else None)


def varied(trials: Sequence[Trial]) -> list[str]:
    """The parameters in which the trials differ; those of a lone trial's overrides."""
    if len(trials) == 1:
        return [o.lstrip("+").partition("=")[0] for o in trials[0].record["overrides"]]
    names = dict.fromkeys(name for trial in trials for name in trial.record["parameters"])
    return [name for name in names if len({str(t.record["parameters"].get(name)) for t in trials}) > 1]


def implied(trials: Sequence[Trial], names: Sequence[str]) -> list[str]:
    """Those of the varied parameters `names` that were not asked for, but follow from another that was.

    ``optimizer=adam,adamw`` varies the weight decay as well, since AdamW has one of its own.
    """
    asked = {split_override(override)[0] for trial in trials for override in trial.record.get("overrides") or []}

    def follows(name: str, other: str) -> bool:
        pairs = {tuple(str(t.record["parameters"].get(key)) for key in (other, name)) for t in trials}
        return len(pairs) == len({value for value, _ in pairs})

    others = [other for other in names if other in asked and other != "seed"]
    return [name for name in names if name not in asked and any(follows(name, other) for other in others)]


def but_for_seed(trials: Sequence[AnyTrial]) -> list[list[AnyTrial]]:
    """Trials of any status in groups that differ in their seed alone, in the order in which they come."""
    groups: dict[str, list[AnyTrial]] = {}
    for trial in trials:
        others = {name: str(value) for name, value in trial.record["parameters"].items() if name != "seed"}
        groups.setdefault(str(sorted(others.items())), []).append(trial)
    return list(groups.values())

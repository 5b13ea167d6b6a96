"""One trial as its folder describes it, and what trials of a study are compared by."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cv_lab.config import split_override
from cv_lab.study.liveness import is_alive

STOPPED = ("paused", "pruned")  # statuses of trials that halving or a search ended after a part of their epochs


@dataclass(frozen=True)
class Trial:
    """One trial as its folder describes it.

    Attributes:
        folder: of the trial.
        record: the content of ``trial.json``.
        result: the content of ``result.json``; None unless the trial is completed.
        epochs: the rows of ``metrics.csv``, numbers by column, the oldest epoch first; empty cells are left out.
    """

    folder: Path
    record: dict[str, Any]
    result: dict[str, Any] | None
    epochs: list[dict[str, float]] = field(default_factory=list)

    @property
    def score(self) -> float:
        """Best value of the monitored metric, negated if smaller is better; -inf without a result."""
        if self.result is None or self.result["monitor"]["best"] is None:
            return -math.inf
        best = float(self.result["monitor"]["best"])
        return best if self.result["monitor"]["mode"] == "max" else -best

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def parameters(self) -> dict[str, Any]:
        parameters: dict[str, Any] = self.record["parameters"]
        return parameters

    @property
    def status(self) -> str:
        """The recorded status, but "killed" if the process is gone; a completed trial may lack its result."""
        status = self.record["status"]
        if status == "running" and not is_alive(self.folder / "trial.json", self.record):
            return "killed"
        return "without result" if status == "completed" and self.result is None else status

    @property
    def metrics(self) -> dict[str, float]:
        """All metrics at the best epoch and of the test, such as "val/accuracy"; empty without a result."""
        metrics = self.result["metrics"] if self.result else {}
        return {name: value for name in metrics if "/" in name and (value := number(metrics[name])) is not None}

    @property
    def units(self) -> dict[str, dict[str, str]]:
        """Unit and mode ("max" or "min") of each metric; a "share" is a number in 0..1, "plain" has no unit."""
        units = (self.result or {}).get("units")
        return units if isinstance(units, dict) else {}

    def unit(self, metric: str) -> str:
        """The unit of a metric, such as "share", "s" or "px"; "plain" where the trial names none."""
        unit = self.units.get(metric)
        return str(unit.get("unit", "plain")) if isinstance(unit, dict) else "plain"

    @property
    def shared_seconds(self) -> dict[str, float]:
        """Seconds of what was computed once for several trials, by its name; no trial counts them as its own."""
        seconds = self.result["seconds"] if self.result else {}
        own = ("fit", "epochs", "test")
        return {name: value for name in seconds if name not in own and (value := number(seconds[name])) is not None}

    @property
    def best(self) -> float | None:
        """Best value of the monitored metric; None without one."""
        return None if self.result is None else self.result["monitor"]["best"]

    def metric(self, name: str) -> float | None:
        """A metric at the best epoch, or of the test."""
        return None if self.result is None else number(self.result["metrics"].get(name))

    def figure(self, *keys: str) -> float | None:
        """A number in ``result.json``, by its path."""
        value: Any = self.result
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return number(value)

    def curve(self, name: str) -> list[tuple[float, float]]:
        """(epoch, value) of a metric where it is a finite number."""
        return [
            (row.get("epoch", i), row[name])
            for i, row in enumerate(self.epochs, 1)
            if name in row and math.isfinite(row[name])
        ]


def varying_parameters(trials: Sequence[Trial]) -> list[str]:
    """The parameters in which the trials differ; those of a lone trial's overrides."""
    if len(trials) == 1:
        asked = [split_override(override)[0] for override in trials[0].record["overrides"]]
        return [name for name in asked if name in trials[0].parameters]
    names = dict.fromkeys(name for trial in trials for name in trial.parameters)
    return [name for name in names if len({str(t.parameters.get(name)) for t in trials}) > 1]


def implied_parameters(trials: Sequence[Trial], names: Sequence[str]) -> list[str]:
    """The varied parameters among `names` that were not overridden, but follow from another one that was.

    ``optimizer=adam,adamw`` varies the weight decay as well, since AdamW has one of its own.
    """
    asked = {split_override(override)[0] for trial in trials for override in trial.record.get("overrides") or []}

    def follows(name: str, other: str) -> bool:
        pairs = {tuple(str(t.parameters.get(key)) for key in (other, name)) for t in trials}
        return len(pairs) == len({value for value, _ in pairs})

    others = [other for other in names if other in asked and other != "seed"]
    return [name for name in names if name not in asked and any(follows(name, other) for other in others)]


def group_by_setting(trials: Sequence[Trial]) -> list[list[Trial]]:
    """Trials of any status in groups that differ in their seed alone, in the order in which they come."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        others = {name: str(value) for name, value in trial.parameters.items() if name != "seed"}
        groups.setdefault(str(trial.record.get("setting") or sorted(others.items())), []).append(trial)
    return list(groups.values())


def number(value: Any) -> float | None:
    """`value` if it is a finite number, else None."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return value
    return None

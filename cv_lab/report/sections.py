"""The trials of a study, sorted: a section for each task, in it the settings, in each the seeds."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cv_lab.report.evidence import Evidence, agrees, read_evidence
from cv_lab.report.matrices import Matrix, matrix
from cv_lab.report.statistics import Scores, bootstrap_interval
from cv_lab.report.wording import Unit
from cv_lab.study.trials import Trial, group_by_setting, implied_parameters, varying_parameters


@dataclass(frozen=True)
class Setting:
    """The trials that differ in nothing but their seed.

    Attributes:
        values: of the parameters in which settings differ.
        label: the same as text.
        trials: by seed.
    """

    values: dict[str, Any]
    label: str
    trials: list[Trial]

    @cached_property
    def finished(self) -> list[Trial]:
        """Its trials with a result."""
        return [trial for trial in self.trials if trial.best is not None]

    @property
    def example(self) -> Trial:
        """The finished trial of the lowest seed, whose pictures are shown: choosing the best one would flatter."""
        return self.finished[0]

    @cached_property
    def scores(self) -> list[float]:
        """Best values of the monitored metric, one a finished trial."""
        return [trial.best for trial in self.trials if trial.best is not None]

    @property
    def scores_by_seed(self) -> dict[int, float]:
        """The scores by seed, or by their order where a seed occurs twice or is no number."""
        seeds = [trial.parameters.get("seed") for trial in self.finished]
        if len(set(map(str, seeds))) < len(seeds) or not all(isinstance(seed, int) for seed in seeds):
            return {-1 - i: score for i, score in enumerate(self.scores)}
        return dict(zip(seeds, self.scores, strict=True))  # type: ignore[arg-type]

    @property
    def mean(self) -> float:
        """Of the scores; there must be some."""
        return statistics.fmean(self.scores)

    @property
    def deviation(self) -> float | None:
        return deviation(self.scores)


@dataclass(frozen=True)
class Section:
    """The trials that can be compared: of one task, judged by one metric.

    Attributes:
        task: name of the task.
        monitor: the metric that trials are judged by, such as "val/accuracy"; "" if no trial has a result.
        mode: "max" or "min".
        trials: in the order of their settings, those of a setting by seed; those without a result last.
        settings: the best mean over seeds first; those without a result last.
        names: parameters in which the settings differ.
        implied: further ones, whose values follow from those of another.
        units: of metrics, by name.
        matrices: confusion matrices, by name of the trial.
        evidence: what the tests say of each image, by name of the trial.
        tested: the test's figure of the monitored metric as a function of its images, by name of the trial.
    """

    task: str
    monitor: str
    mode: str
    trials: list[Trial]
    settings: list[Setting]
    names: list[str]
    implied: list[str]
    units: dict[str, Unit]
    matrices: dict[str, Matrix]
    evidence: dict[str, Evidence]
    tested: dict[str, Scores]

    @property
    def title(self) -> str:
        return f"{self.task}, judged by {self.monitor}" if self.monitor else self.task

    @property
    def metric(self) -> str:
        """For "val/accuracy", "accuracy"."""
        return self.monitor.partition("/")[2]

    @property
    def seeds(self) -> int:
        """The largest number of finished trials in a setting."""
        return max((len(setting.scores) for setting in self.settings), default=0)

    @property
    def finished(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.best is not None]

    @cached_property
    def judged(self) -> list[Setting]:
        """Settings with a result, best first."""
        return [setting for setting in self.settings if setting.scores]

    @property
    def losses(self) -> list[str]:
        """The loss functions of the trials, in words; values of different ones are different quantities."""
        return list(dict.fromkeys(map(loss_of, self.trials)))

    @property
    def validated_on_test(self) -> list[Trial]:
        """The finished trials whose epoch was chosen on the test set."""
        return [t for t in self.finished if (t.result or {})["monitor"].get("validation") not in ("split", None)]

    def unit(self, name: str) -> Unit:
        """How values of a metric are written; of the monitored one for an empty name."""
        return self.units.get(name, Unit())

    def interval(self, trials: Sequence[Trial]) -> tuple[float, float] | None:
        """95 % interval over the test images of the trials' mean test figure; None without what each said of them."""
        scores = [self.tested[trial.name] for trial in trials if trial.name in self.tested]
        if not scores or len(scores) < len(trials) or len({one.n for one in scores}) > 1:
            return None
        return bootstrap_interval(scores)

    def better(self, a: float, b: float) -> float:
        """By how much `a` is better than `b`; negative if it is worse."""
        return a - b if self.mode == "max" else b - a

    def label(self, trial: Trial) -> str:
        """A trial by the values in which it differs from the others."""
        names = [name for name in (*self.names, "seed") if name in self.names or len(self.settings) < len(self.trials)]
        alone = "the only trial" if len(self.trials) == 1 else trial.name
        return label({name: trial.parameters[name] for name in names if name in trial.parameters}) or alone


def sections(trials: Sequence[Trial], notes: list[str]) -> list[Section]:
    """Sort trials into sections.

    Args:
        trials: of a study.
        notes: get a sentence for every file that cannot be used.
    """
    groups: dict[tuple[str, str, str, str], list[Trial]] = {}
    for trial in trials:
        if trial.result is not None:
            monitor = trial.result["monitor"]
            # Values of different loss functions cannot be compared, so neither can trials that are judged by them.
            loss = loss_of(trial) if monitor["name"].endswith("/loss") else ""
            groups.setdefault((_task(trial), monitor["name"], monitor["mode"], loss), []).append(trial)
    for trial in trials:
        if trial.result is None:  # by what it is judged is not known: it goes to the others of its task
            key = next((key for key in groups if key[0] == _task(trial)), (_task(trial), "", "max", ""))
            groups.setdefault(key, []).append(trial)
    return [_section(*key[:3], members, notes) for key, members in groups.items()]


def loss_of(trial: Trial) -> str:
    """The loss function of a trial with its settings, in words."""
    values = trial.parameters.items()
    return label({k: v for k, v in values if k in ("loss", "label_smoothing") or k.startswith("loss.")})


def label(values: dict[str, Any]) -> str:
    """Parameters in words: "optimizer adam, lr 0.001"."""
    return ", ".join(f"{name} {text(value)}" for name, value in values.items())


def text(value: Any) -> str:
    """A parameter's value."""
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def deviation(values: Sequence[float]) -> float | None:
    """Standard deviation of the sample; None for fewer than two."""
    return statistics.stdev(values) if len(values) > 1 else None


def _section(task: str, monitor: str, mode: str, trials: list[Trial], notes: list[str]) -> Section:
    names = [name for name in varying_parameters(trials) if name != "seed"] if len(trials) > 1 else []
    follow = implied_parameters(trials, names)
    names = [name for name in names if name not in follow]
    settings = []
    for members in group_by_setting(trials):
        values = {name: members[0].parameters.get(name) for name in names}
        members.sort(key=lambda trial: _by_number(trial.parameters.get("seed")))
        named = {name: value for name, value in values.items() if name in members[0].parameters}
        settings.append(Setting(values, label(named) or "the only setting", members))
    sign = 1 if mode == "max" else -1
    settings.sort(key=lambda setting: -sign * setting.mean if setting.scores else math.inf)
    ordered = [trial for setting in settings for trial in setting.trials]
    ordered.sort(key=lambda trial: trial.best is None)
    matrices = {t.name: m for t in ordered if t.best is not None and (m := matrix(t, notes)) is not None}
    evidence = {
        t.name: e
        for t in ordered
        if t.best is not None and (e := read_evidence(t, matrices.get(t.name), notes)) is not None
    }
    tested = _tested(ordered, monitor.partition("/")[2], evidence, notes)
    return Section(task, monitor, mode, ordered, settings, names, follow, _units(trials), matrices, evidence, tested)


def _units(trials: Sequence[Trial]) -> dict[str, Unit]:
    units: dict[str, Unit] = {}
    for trial in trials:
        written = (trial.result or {}).get("units")
        for name, fields in written.items() if isinstance(written, dict) else ():
            if isinstance(fields, dict):
                units.setdefault(name, Unit(str(fields.get("unit", "plain")), str(fields.get("mode", "max"))))
    return units


def _tested(trials: Sequence[Trial], metric: str, evidence: dict[str, Evidence], notes: list[str]) -> dict[str, Scores]:
    """The test's figure of each trial as a function of its images, where it is the one in ``result.json``."""
    tested = {}
    for trial in trials:
        known, figure = evidence.get(trial.name), trial.metric(f"test/{metric}")
        if known is None or figure is None or (scores := known.scores(metric)) is None:
            continue
        if agrees(scores, figure):
            tested[trial.name] = scores
        else:
            notes.append(
                f"{trial.name} is shown without an interval: its images give a test/{metric} of {scores.value():.4g}, "
                f"result.json says {figure:.4g}."
            )
    return tested


def _by_number(value: Any) -> tuple[float, str]:
    return (value, "") if isinstance(value, int | float) else (math.inf, str(value))


def _task(trial: Trial) -> str:
    return text(trial.parameters.get("task", "unknown task"))

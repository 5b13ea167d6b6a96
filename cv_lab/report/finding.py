"""What every finding of a report consists of."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cv_lab.report.sections import Setting


@dataclass(frozen=True)
class Finding:
    """A sentence or two, with what it rests on.

    Attributes:
        kind: such as "winner"; kinds that warn are in WARNINGS.
        text: as plain text.
        trials: names of the folders that the figures come from.
        figure: key of the figure that shows it, "" for none.
        numbers: the figures behind the sentence, for programs; shares in 0..1.
        test: name of the statistical test, "" for none.
    """

    kind: str
    text: str
    trials: list[str]
    figure: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)
    test: str = ""


# Kinds that claim something of settings beyond the trials that were run.
CLAIMS = {"winner", "effect", "interaction"}
WARNINGS = {
    "baseline",
    "biased",
    "code",
    "collapsed",
    "did not learn",
    "diverged",
    "failed",
    "losses",
    "no effect",
    "overfitted",
    "trouble",
    "underfitted",
    "unfinished",
}


def names_of(settings: Sequence[Setting]) -> list[str]:
    """Names of the finished trials of settings."""
    return [trial.name for setting in settings for trial in setting.finished]

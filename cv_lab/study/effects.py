"""Parameters of a study that changed nothing: trials that differ in them are equal to the last bit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cv_lab.study.trials import Trial, implied_parameters, varying_parameters

# What an epoch's row holds beside metrics: a learning rate that the optimizer does not use is logged all the same.
NOT_METRICS = {"lr"}


@dataclass(frozen=True)
class NoEffect:
    """Parameters without an effect.

    Attributes:
        parameters: their names; of several that differ between the same trials, each may be the one.
        trials: groups of trials that differ in these parameters alone and are equal to the last bit.
        text: the finding as a sentence.
    """

    parameters: list[str]
    trials: list[list[Trial]]
    text: str


def without_effect(trials: Sequence[Trial]) -> list[NoEffect]:
    """The varied parameters that had no effect in some or all of a study's `trials`.

    Trials are equal if the hashes of their weights, and all metrics of their best and of their last epoch and of the
    test are: parameters that act in the test alone, or that choose another epoch, have an effect.
    """
    equal: dict[str, list[Trial]] = {}
    for trial in trials:
        if trial.result is not None and trial.result.get("weights_sha256"):
            equal.setdefault(_outcome(trial.result), []).append(trial)
    by_parameters: dict[tuple[str, ...], list[list[Trial]]] = {}
    for group in equal.values():
        names = varying_parameters(group) if len(group) > 1 else []
        names = [name for name in names if name not in implied_parameters(group, names)]
        if names:
            by_parameters.setdefault(tuple(names), []).append(group)
    return [NoEffect(list(names), groups, _sentence(names, groups, trials)) for names, groups in by_parameters.items()]


def _outcome(result: dict[str, Any]) -> str:
    """Everything in a trial's result that depends on what it learned, as text, without times."""
    rows = [result["metrics"], result.get("last") or {}]
    metrics = [sorted((name, value) for name, value in row.items() if name not in NOT_METRICS) for row in rows]
    return repr((result["weights_sha256"], metrics))


def _sentence(names: Sequence[str], groups: Sequence[Sequence[Trial]], trials: Sequence[Trial]) -> str:
    which = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    if len(groups) > 1:
        who = f"trials that differ in {'it' if len(names) == 1 else 'them'} alone, in {len(groups)} groups,"
    elif len(groups[0]) == 2:
        who = "both trials"
    else:
        who = f"all {len(groups[0])} trials"
    # Other parameters that these trials have in common and that vary in the study: elsewhere it may have an effect.
    members = [trial for group in groups for trial in group]
    others = (
        [name for name in varying_parameters(trials) if name not in {*names, *varying_parameters(members)}]
        if len(trials) > 1
        else []
    )
    where = ", ".join(f"{name}={members[0].parameters.get(name)}" for name in others)
    return f"{which} had no effect: {who}{f' with {where}' if where else ''} are equal to the last bit."

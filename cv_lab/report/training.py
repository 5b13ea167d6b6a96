"""What a section says of its trainings: how many epochs are enough, and what costs less."""

from collections.abc import Sequence

from cv_lab.report.figures import front_of
from cv_lab.report.finding import Finding
from cv_lab.report.sections import Section, Setting
from cv_lab.report.wording import every, seconds
from cv_lab.study.trials import Trial
from cv_lab.text import listing

ENOUGH = 0.005  # of a metric in 0..1: half a point, within which a result counts as reached
CLOSE = 0.02  # of the best result; a setting that gives up no more is worth naming if it is quicker
QUICKER = 0.8  # of the best setting's time; more is no saving to speak of
# Parameters that change the work of an epoch. Trials that agree in these, in their network and in their epochs do
# the same work, and differ in their times by chance.
OF_WORK = ("data", "batch_size", "precision", "augmentation", "weights", "model", "task")


def epochs(section: Section) -> list[Finding]:
    """Where more epochs stopped helping, and where they may still help."""
    curves = {t.name: t.curve(section.monitor) for t in section.finished}
    best = {t.name: epoch for t in section.finished if (epoch := t.figure("monitor", "epoch")) is not None}
    trials = [t for t in section.finished if len(curves[t.name]) > 1 and t.name in best]
    if not trials:
        return []
    found = []
    growing = [t for t in trials if best[t.name] == curves[t.name][-1][0]]
    if growing:
        whose = "" if len(growing) == len(trials) else f": {listing([section.label(t) for t in growing], 4)}"
        words = f"{_in(growing, trials)} the last epoch was the best, so more epochs may help{whose}."
        found.append(Finding("epochs", words, [t.name for t in growing], "curves"))
    past = [t for t in trials if best[t.name] <= curves[t.name][-1][0] - 2]
    if past:
        told = [f"{section.label(t)} (epoch {best[t.name]:g} of {curves[t.name][-1][0]:g})" for t in past]
        words = (
            f"{_in(past, trials)} the best epoch came two or more before the last, and those after it brought "
            f"nothing: {listing(told, 4)}."
        )
        found.append(Finding("epochs", words, [t.name for t in past], "curves"))
    first = section.judged[0].example
    if section.unit(section.monitor).is_share and first in trials:
        found += _saturated(section, first, curves[first.name])
    return found


def costs(section: Section) -> list[Finding]:
    """How little of the best result a setting with less work gives up."""
    front = front_of(section)
    if not front:
        return []
    best, slow = front[-1]
    limit = CLOSE * abs(best.mean)
    close, quick = next(one for one in front if section.better(best.mean, one[0].mean) <= limit)
    if close is best or quick > QUICKER * slow or work(close.example) == work(best.example):
        return []
    if max(_times(close)) >= min(_times(best)):
        return []  # seeds of the one take as long as seeds of the other
    distance = section.unit(section.monitor).gap(section.better(best.mean, close.mean))
    words = (
        f"{close.label} comes within {distance} of the best setting in {seconds(quick)} s of training instead of "
        f"{seconds(slow)} s ({100 * quick / slow:.0f} % of the time)."
    )
    trials = [trial.name for setting in (close, best) for trial in setting.finished]
    return [Finding("cost", words, trials, "cost", {"seconds": [quick, slow], "means": [close.mean, best.mean]})]


def work(trial: Trial) -> tuple[str, ...]:
    """What decides how much a training computes; trials with equal ones take equally long but for chance."""
    sizes = (len(trial.epochs), trial.figure("flops_per_image"), trial.figure("parameters", "trained"))
    values = {n: v for n, v in trial.parameters.items() if n in OF_WORK or n.startswith(("data.", "model.", "trainer"))}
    return (*map(str, sizes), str(sorted(values.items())), str(trial.record.get("device")))


def _times(setting: Setting) -> list[float]:
    return [spent for trial in setting.finished if (spent := trial.figure("seconds", "fit"))]


def _saturated(section: Section, trial: Trial, curve: list[tuple[float, float]]) -> list[Finding]:
    """Whether a trial of the best setting could have been shorter."""
    best, last, unit = trial.best, curve[-1][0], section.unit(section.monitor)
    assert best is not None
    reached = next((epoch for epoch, value in curve if section.better(best, value) <= ENOUGH), last)
    if last - reached < 2:
        return []
    before = next(value for epoch, value in curve if epoch == reached)
    which = "The only trial" if len(section.trials) == 1 else f"A trial of the best setting, {section.label(trial)},"
    words = (
        f"{which} came within {unit.gap(ENOUGH)} of its best at epoch {reached:g} of {last:g}; the {last - reached:g} "
        f"later epochs, {100 * (last - reached) / last:.0f} % of its training, brought "
        f"{unit.gap(section.better(best, before))}."
    )
    return [Finding("epochs", words, [trial.name], "curves")]


def _in(some: Sequence[Trial], trials: Sequence[Trial]) -> str:
    """ "In 2 of 9 finished trials", of those that have curves."""
    if len(trials) == 1:
        return "In the finished trial"
    if len(some) == len(trials):
        return f"In {every(len(trials), 'finished trial')}"
    return f"In {len(some)} of {len(trials)} finished trials"

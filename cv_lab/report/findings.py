"""What a study says, in plain sentences. Each names the trials that it rests on and claims no more than they carry."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cv_lab.report.figures import front_of, pair_key
from cv_lab.report.sections import Section, Setting, text
from cv_lab.report.wording import count, every, figure, gap, is_share, listing, seconds, slug, spread
from cv_lab.study.diagnosis import dead_learning, diverging_loss
from cv_lab.study.effects import without_effect
from cv_lab.study.trials import Trial, number

ENOUGH = 0.005  # of a metric in 0..1: half a point, within which a result counts as reached
CLOSE = 0.02  # of the best result; a trial that gives up no more is worth naming if it is quicker
QUICKER = 0.8  # of the best trial's time; more is no saving to speak of
UNDERFITTED = 0.6  # of the best trial's training metric
SEARCH = 20  # settings, from which on a parameter that never has a value twice counts as searched
SEEDS = 5  # below so many, a standard deviation is itself uncertain by a third or more


@dataclass(frozen=True)
class Finding:
    """A sentence or two, with what it rests on.

    Attributes:
        kind: such as "winner"; kinds that warn are in WARNINGS.
        text: as plain text.
        trials: names of the folders that the figures come from.
        figure: key of the figure that shows it, "" for none.
    """

    kind: str
    text: str
    trials: list[str]
    figure: str = ""


# What trials find wrong with themselves, see cv_lab.study.diagnosis, by what it is called here.
TROUBLE = {
    "diverged": {"diverging_loss", "exploding_loss"},
    "collapsed": {"collapse"},
    "overfitted": {"overfitting"},
    "underfitted": {"dead_learning", "chance_level"},
}
WARNINGS = {
    "no_effect",
    "failed",
    "diverged",
    "collapsed",
    "overfitted",
    "underfitted",
    "told",
    "biased",
    "unfinished",
    "code",
}


def findings(section: Section) -> list[Finding]:
    """All findings of a section, what was asked first."""
    found = [winner(section), *parameters(section), *interactions(section), *epochs(section), *costs(section)]
    found += [*trouble(section), *idle(section), *caveats(section)]
    return [finding for finding in found if finding is not None]


def winner(section: Section) -> Finding | None:
    """The best setting, and by how much it beats the next."""
    judged = section.judged
    if not judged:
        return None
    first = judged[0]
    tested = [v for trial in first.trials if (v := trial.metric(f"test/{section.metric}")) is not None]
    test = f", test/{section.metric} {figure(section.monitor, sum(tested) / len(tested))}" if tested else ""
    words = f"{section.monitor} {figure(section.monitor, first.mean)}{spread(section.monitor, first.deviation)}{test}"
    words += f" ({_seeds(first)})"
    if len(judged) == 1:
        which = f"The one setting with a result, {first.label}," if section.names else "The one setting"
        return Finding("winner", f"{which} reaches {words}.", _names([first]))
    second = judged[1]
    start = f"Best of {len(judged)} settings is {first.label}: {words}."
    if first.mean == second.mean:
        end = f" Equal to it is {second.label}."
    else:
        reached = figure(section.monitor, second.mean)
        end = f" Next comes {second.label} with {reached}, {_margin(section, first, second)}."
    return Finding("winner", start + end, _names([first, second]), "trials")


def parameters(section: Section) -> list[Finding]:
    """For each varied parameter, how well its values do at their best."""
    found = []
    for name in section.names:
        tops = _tops(section, name)
        if len(tops) < 2:
            continue
        ranked = list(tops.values())
        if len(tops) == len(section.judged) >= SEARCH and len(section.names) > 1:
            found.append(_range(section, name))
            continue
        if len(section.names) > 1:
            told = [f"{text(s.values[name])} ({figure(section.monitor, s.mean)}{_others(s, name)})" for s in ranked]
            words = f"Values of {name}, each at its best: {listing(told)}."
            if ranked[:2] != section.judged[:2]:  # which were compared already
                words += f" The second comes {_margin(section, ranked[0], ranked[1])}."
            other = next(other for other in section.names if other != name)
            found.append(Finding("parameter", words, _names(ranked), pair_key(section, name, other)))
        if (edge := _edge(section, name, tops)) is not None:
            found.append(edge)
    return found


def interactions(section: Section) -> list[Finding]:
    """For pairs of parameters, whether the best value of one depends on the other."""
    found = []
    for given in section.names:
        for asked in section.names:
            # Each pair once: asked is the one with numbers, such as the learning rate, or else the later one.
            if given == asked or _precedes(section, asked, given):
                continue
            best: dict[str, Setting] = {}
            tried: dict[str, set[str]] = {}
            for setting in section.judged:
                key = text(setting.values[given])
                best.setdefault(key, setting)
                tried.setdefault(key, set()).add(text(setting.values[asked]))
            best = {key: setting for key, setting in best.items() if len(tried[key]) > 1}
            if len(best) > 1:
                found.append(_interaction(section, given, asked, best))
    return found


def epochs(section: Section) -> list[Finding]:
    """Where more epochs stopped helping, and where they may still help."""
    curves = {t.name: t.curve(section.monitor) for t in section.finished}
    trials = [t for t in section.finished if len(curves[t.name]) > 1 and t.figure("monitor", "epoch") is not None]
    if not trials:
        return []
    found = []
    growing = [t for t in trials if t.figure("monitor", "epoch") == curves[t.name][-1][0]]
    if growing:
        which = "the last epoch was the best"
        whose = "" if len(growing) == len(trials) else f": {listing([section.label(t) for t in growing], 4)}"
        found.append(
            Finding(
                "epochs",
                f"{_in(growing, trials)} {which}, so more epochs may help{whose}.",
                [t.name for t in growing],
                "curves",
            )
        )
    past = [t for t in trials if (t.figure("monitor", "epoch") or 0) <= curves[t.name][-1][0] - 2]
    if past:
        told = [
            f"{section.label(t)} (epoch {t.figure('monitor', 'epoch'):g} of {curves[t.name][-1][0]:g})" for t in past
        ]
        found.append(
            Finding(
                "epochs",
                f"{_in(past, trials)} the best epoch came two or more before the "
                f"last, and those after it brought nothing: {listing(told, 4)}.",
                [t.name for t in past],
                "curves",
            )
        )
    if is_share(section.monitor) and (saturated := _saturated(section, trials[0], curves[trials[0].name])):
        found.append(saturated)
    return found


def costs(section: Section) -> list[Finding]:
    """How little of the best result a quicker trial gives up."""
    front = [(t, t.best, s) for t in front_of(section) if t.best is not None and (s := t.figure("seconds", "fit"))]
    if not front:
        return []
    best, top, slow = front[-1]
    close, value, quick = next(one for one in front if section.better(top, one[1]) <= CLOSE * abs(top))
    if close is best or quick > QUICKER * slow:
        return []
    words = (
        f"{section.label(close)} comes within {gap(section.monitor, section.better(top, value))} of the best trial in "
        f"{seconds(quick)} s of training instead of {seconds(slow)} s ({100 * quick / slow:.0f} % of the time; one "
        "measurement each)."
    )
    return [Finding("cost", words, [close.name, best.name], "cost")]


def trouble(section: Section) -> list[Finding]:
    """Trials that failed, diverged, collapsed, overfitted or underfitted."""
    found = []
    failed: dict[str, list[Trial]] = {}
    for trial in section.trials:
        if trial.status == "failed":
            failed.setdefault(reason(trial), []).append(trial)
    for why, trials in failed.items():
        words = f"{count(len(trials), 'trial')} failed ({listing([section.label(t) for t in trials], 4)}): {why}"
        found.append(Finding("failed", words, [t.name for t in trials], "failures"))
    told = {trial.name: _told(trial) for trial in section.trials}
    said: set[str] = set()  # a trial that diverged is not called underfitted, too
    for kind, told_kinds in TROUBLE.items():
        cases = []
        for trial in section.trials:
            case = next((words for told_kind, words in told[trial.name] if told_kind in told_kinds), None)
            if case is None and kind == "underfitted":
                case = _underfitted(section, trial)
            if case is not None and (trial.name not in said or kind == "overfitted"):
                cases.append((trial, case))
                said.add(trial.name)
        if cases:
            # What to try is the same for all, and said once.
            parts = [(section.label(trial), *words.partition(". Try ")) for trial, words in cases]
            told_cases = " ".join(f"{label}: {words}." for label, words, _, _ in parts[:2])
            if len(parts) > 2:
                told_cases += f" Likewise {listing([label for label, *_ in parts[2:]])}."
            advice = "".join(f" Try {one}." for one in dict.fromkeys(one for *_, one in parts if one))
            start = f"{len(cases)} of {count(len(section.trials), 'trial')} {kind}. "
            found.append(Finding(kind, start + told_cases + advice, [t.name for t, _ in cases], "curves"))
    known = {kind for kinds in TROUBLE.values() for kind in kinds}
    for trial in section.trials:
        for told_kind, words in told[trial.name]:
            if told_kind not in known:
                found.append(Finding("told", f"{section.label(trial)}, {words}.", [trial.name]))
    return found


def idle(section: Section) -> list[Finding]:
    """Parameters that changed nothing."""
    return [
        Finding("no_effect", case.text, [trial.folder.name for group in case.trials for trial in group])
        for case in without_effect(section.trials)
    ]


def caveats(section: Section) -> list[Finding]:
    """What must be known before the figures are quoted."""
    found = []
    biased = [t for t in section.finished if (t.result or {})["monitor"].get("validation") not in ("split", None)]
    if biased:
        words = "on the test set, which so picked the checkpoint too: the figures of the test are no unbiased estimate."
        found.append(Finding("biased", f"{_of(section, biased)} validated {words}", [t.name for t in biased]))
    unfinished = [t for t in section.trials if t.status in ("running", "interrupted", "killed", "without result")]
    if unfinished:
        words = "without a result (see the table), and without a part in what is said above."
        found.append(
            Finding(
                "unfinished",
                f"{_of(section, unfinished)} {'is' if len(unfinished) == 1 else 'are'} {words}",
                [t.name for t in unfinished],
            )
        )
    if 1 < section.seeds < SEEDS:
        words = f"Deviations rest on at most {section.seeds} seeds, so they are rough themselves."
        found.append(Finding("seeds", words, [t.name for t in section.finished]))
    if section.seeds == 1 and len(section.judged) > 1:
        words = "Every setting was run with one seed, so nothing above is compared with chance; seed=1,2,3 would do so."
        found.append(Finding("seeds", words, [t.name for t in section.finished]))
    for field, words in (
        ("git_commit", "with {} versions of the code"),
        ("device", "on {} devices, so times do not compare"),
    ):
        by_value: dict[str, list[str]] = {}
        for trial in section.trials:
            if trial.record.get(field) is not None:
                by_value.setdefault(str(trial.record[field])[:40], []).append(trial.name)
        if len(by_value) > 1:
            words = f"The trials ran {words.format(len(by_value))}: {listing(list(by_value))}."
            found.append(Finding("code", words, [name for names in by_value.values() for name in names]))
    return found


def _of(section: Section, trials: Sequence[Trial]) -> str:
    """ "2 of 9 trials", "Both trials", "All 9 trials"."""
    if len(trials) == len(section.trials) > 1:
        return every(len(trials), "trial").capitalize()
    return f"{len(trials)} of {count(len(section.trials), 'trial')}"


def reason(trial: Trial) -> str:
    """Why a trial failed, in one line."""
    error = trial.record.get("error")
    if not isinstance(error, dict):
        return "it left no reason"
    message = str(error.get("message") or "").strip().splitlines()
    return (message[0] if message else str(error.get("type") or "it left no reason")).rstrip(".") + "."


def _margin(section: Section, a: Setting, b: Setting, behind: str = "behind") -> str:
    """How far `b` is behind `a`, and what that is against the spread over seeds."""
    distance = section.better(a.mean, b.mean)
    words = f"{gap(section.monitor, distance)} {behind}"
    common = _pooled(a, b)
    if common is None:
        seeds = "one seed each" if len(a.scores) == len(b.scores) == 1 else "one of the two has a single seed"
        return f"{words} ({seeds}, so how much of it is chance is not known)"
    deviation = f"the deviation over seeds, {gap(section.monitor, common)}"
    if distance > 2 * common:
        return f"{words}: more than twice {deviation}"
    if distance > common:
        return f"{words}: one to two times {deviation}, so more seeds would tell"
    return f"{words}: no more than {deviation}, so these figures do not tell the two apart"


def _pooled(a: Setting, b: Setting) -> float | None:
    """Root mean square of two settings' deviations over seeds; None if one has a single seed."""
    if a.deviation is None or b.deviation is None:
        return None
    return math.sqrt((a.deviation**2 + b.deviation**2) / 2)


def _seeds(setting: Setting) -> str:
    n = len(setting.scores)
    return "one seed" if n == 1 else f"mean and deviation over {n} seeds"


def _tops(section: Section, name: str) -> dict[str, Setting]:
    """For each value of a parameter the best setting that has it, best first."""
    tops: dict[str, Setting] = {}
    for setting in section.judged:
        tops.setdefault(text(setting.values[name]), setting)
    return tops


def _others(setting: Setting, name: str) -> str:
    """The other parameters of a setting."""
    others = [f"{key} {text(value)}" for key, value in setting.values.items() if key != name]
    return " at " + ", ".join(others)


def _range(section: Section, name: str) -> Finding:
    """Of a search, in which no value occurs twice: where the best tenth of it lies."""
    top = section.judged[: len(section.judged) // 10]
    values = [setting.values[name] for setting in top]
    numbers = [n for value in values if (n := number(value)) is not None]
    where = (
        f"{text(min(numbers))} to {text(max(numbers))}"
        if len(numbers) == len(values)
        else listing(list(map(text, values)))
    )
    words = f"The best {count(len(top), 'setting')} of {len(section.judged)} had {name} {where}."
    return Finding("parameter", words, _names(top), f"by_{slug(name)}")


def _edge(section: Section, name: str, tops: dict[str, Setting]) -> Finding | None:
    """A best value that is the smallest or largest tried: beyond it may lie a better one."""
    numbers = [n for s in tops.values() if (n := number(s.values[name])) is not None]
    if len(numbers) < max(3, len(tops)) or name == "epochs":
        return None
    end = "smallest" if numbers[0] == min(numbers) else "largest" if numbers[0] == max(numbers) else ""
    if not end or (end == "smallest" and numbers[0] == 0):
        return None
    words = f"The best {name}, {text(numbers[0])}, is the {end} tried: what lies beyond is not known."
    return Finding("edge", words, _names([next(iter(tops.values()))]))


def _precedes(section: Section, asked: str, given: str) -> bool:
    rank = {n: (all(number(s.values[n]) is not None for s in section.settings), i) for i, n in enumerate(section.names)}
    return rank[asked] < rank[given]


def _interaction(section: Section, given: str, asked: str, best: dict[str, Setting]) -> Finding:
    choices = {key: text(setting.values[asked]) for key, setting in best.items()}
    trials, show = _names(list(best.values())), pair_key(section, given, asked)
    if len(set(choices.values())) == 1:
        words = f"The best {asked} is {next(iter(choices.values()))} for every {given} tried ({', '.join(choices)})."
        return Finding("interaction", words, trials, show)
    told = listing([f"{value} for {key}" for key, value in choices.items()])
    common = next(iter(choices.values()))  # of the best setting
    losses = []
    for key, setting in best.items():
        values = {given: key, asked: common}
        same = next((s for s in section.judged if values == {name: text(s.values[name]) for name in values}), None)
        if choices[key] != common and same is not None:
            losses.append((section.better(setting.mean, same.mean), key, setting, same))
    if not losses:
        return Finding("interaction", f"The best {asked} differs by {given}: {told}.", trials, show)
    distance, key, setting, same = max(losses, key=lambda loss: loss[0])
    chance = _pooled(setting, same)
    start = f"The best {asked} differs by {given}: {told}."
    if chance is not None and distance <= chance:
        start = f"The highest figures are at another {asked} for each {given} ({told}), but this may be chance."
    words = f"{start} With {common} for all, {key} falls {_margin(section, setting, same, 'behind its own best')}."
    return Finding("interaction", words, list(dict.fromkeys([*trials, *_names([same])])), show)


def _saturated(section: Section, trial: Trial, curve: list[tuple[float, float]]) -> Finding | None:
    best, last = trial.best, curve[-1][0]
    assert best is not None
    reached = next((epoch for epoch, value in curve if section.better(best, value) <= ENOUGH), last)
    if last - reached < 2:
        return None
    before = next(value for epoch, value in curve if epoch == reached)
    which = "The only trial" if len(section.trials) == 1 else f"The best trial, {section.label(trial)},"
    words = (
        f"{which} came within {gap(section.monitor, ENOUGH)} of its best at epoch "
        f"{reached:g} of {last:g}; the {last - reached:g} later epochs, {100 * (last - reached) / last:.0f} % of its "
        f"training, brought {gap(section.monitor, section.better(best, before))}."
    )
    return Finding("epochs", words, [trial.name], "curves")


def _told(trial: Trial) -> list[tuple[str, str]]:
    """Kind and words of what the trial found wrong with itself to its end.

    One that did not come to write its result is judged by its curves, by the same rules.
    """
    if trial.result is None:
        rows = [row for row in trial.epochs if "train/loss" in row]
        if not rows:
            return []
        seen = {"diverging_loss": diverging_loss(rows), "dead_learning": dead_learning(rows)}
        return [(kind, words) for kind, words in seen.items() if words is not None]
    told = trial.result.get("findings")
    complete = {"kind", "epoch", "message"}
    return [
        (str(f["kind"]), f"from epoch {f['epoch']} on, {str(f['message']).rstrip('.')}")
        for f in (told if isinstance(told, list) else [])
        if isinstance(f, dict) and complete <= f.keys() and f.get("recovered") is None
    ]


def _underfitted(section: Section, trial: Trial) -> str | None:
    name = f"train/{section.metric}"
    if trial.best is None or section.mode != "max" or not is_share(name):
        return None
    own, best = (next((row[name] for row in t.epochs[-1:] if name in row), None) for t in (trial, section.best))
    if own is None or best is None or not own < UNDERFITTED * best:
        return None
    return f"{name} is only {figure(name, own)} in its last epoch, that of the best trial {figure(name, best)}"


def _in(some: Sequence[Trial], trials: Sequence[Trial]) -> str:
    """ "In 2 of 9 finished trials"."""
    if len(trials) == 1:
        return "In the finished trial"
    if len(some) == len(trials):
        return f"In {every(len(trials), 'finished trial')}"
    return f"In {len(some)} of {len(trials)} finished trials"


def _names(settings: Sequence[Setting]) -> list[str]:
    return [trial.name for setting in settings for trial in setting.trials if trial.best is not None]

"""What is wrong with the trials of a section, and what must be known before its figures are quoted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cv_lab.report.finding import Finding
from cv_lab.report.sections import Section, mean
from cv_lab.report.wording import count, every
from cv_lab.study.diagnosis import dead_learning, diverging_loss
from cv_lab.study.halving import rank_agreement
from cv_lab.study.trials import Trial, number
from cv_lab.text import listing

UNDERFITTED = 0.6  # of the best setting's training metric
SEEDS = 5  # below so many, a standard deviation is itself uncertain by a third or more

# What trials find wrong with themselves, see cv_lab.study.diagnosis, by what it is called here.
TROUBLE: dict[str, set[str]] = {
    "diverged": {"diverging_loss", "exploding_loss"},
    "collapsed": {"collapse"},
    "did not learn": {"dead_learning", "chance_level"},
    "overfitted": {"overfitting"},
    "underfitted": set(),
}
WITHOUT_RESULT = ("running", "interrupted", "killed", "without result")


@dataclass(frozen=True)
class Case:
    """What is wrong with one trial.

    Attributes:
        trial: the trial.
        kind: as in cv_lab.study.diagnosis.
        words: what is wrong, since when, and whether the kept checkpoint has it.
        advice: what to try, "" for nothing.
    """

    trial: Trial
    kind: str
    words: str
    advice: str = ""


def summary(section: Section) -> list[Finding]:
    """One sentence that counts all that went wrong, for the first paragraph."""
    failed = [t for t in section.trials if t.status == "failed"]
    unfinished = [t for t in section.trials if t.status in WITHOUT_RESULT]
    groups = {"failed": failed, **{kind: [c.trial for c in cases] for kind, cases in _cases(section).items()}}
    parts = [f"{len(trials)} {kind}" for kind, trials in groups.items() if trials and kind in (*TROUBLE, "failed")]
    if unfinished:
        parts.append(f"{len(unfinished)} {'has' if len(unfinished) == 1 else 'have'} no result")
    if not parts:
        return []
    names = dict.fromkeys(t.name for trials in (*groups.values(), unfinished) for t in trials)
    return [Finding("trouble", f"Of {count(len(section.trials), 'trial')}, {listing(parts, 8)}.", list(names))]


def trouble(section: Section) -> list[Finding]:
    """Trials that failed, diverged, collapsed, did not learn, overfitted or underfitted."""
    found = []
    failed: dict[str, list[Trial]] = {}
    for trial in section.trials:
        if trial.status == "failed":
            failed.setdefault(reason(trial), []).append(trial)
    for why, trials in failed.items():
        words = f"{count(len(trials), 'trial')} failed ({listing([section.label(t) for t in trials], 4)}): {why}"
        found.append(Finding("failed", words, [t.name for t in trials], "failures"))
    for kind, cases in _cases(section).items():
        names = [case.trial.name for case in cases]
        start = f"{len(cases)} of {count(len(section.trials), 'trial')} {kind}. " if kind in TROUBLE else ""
        words = " ".join(f"{section.label(case.trial)}: {case.words}." for case in cases[:2])
        if len(cases) > 2:
            words += f" Likewise {listing([section.label(case.trial) for case in cases[2:]])}."
        # What to try is the same for most, and said once.
        words += "".join(f" Try {one}." for one in dict.fromkeys(case.advice for case in cases if case.advice))
        found.append(Finding(kind if kind in TROUBLE else "told", start + words, names, "curves"))
    return found


def caveats(section: Section) -> list[Finding]:
    """What must be known before the figures are quoted."""
    found = []
    if len(section.losses) > 1:
        words = (
            f"The trials train with {len(section.losses)} loss functions, whose values are different quantities: they "
            "share no column and no axis."
        )
        found.append(Finding("losses", words, [t.name for t in section.trials]))
    unfinished = [t for t in section.trials if t.status in WITHOUT_RESULT]
    if unfinished:
        words = f"{_of(section, unfinished)} {'is' if len(unfinished) == 1 else 'are'} without a result (see the table)"
        words += ", and without a part in what is said above."
        found.append(Finding("unfinished", words, [t.name for t in unfinished]))
    found += stopped(section)
    if 1 < section.seeds < SEEDS:
        words = f"Deviations rest on at most {section.seeds} seeds, so they are rough themselves."
        found.append(Finding("seeds", words, [t.name for t in section.finished]))
    if section.seeds == 1 and len(section.judged) > 1:
        words = "Every setting was run with one seed, so nothing is known of other seeds; seed=1,2,3 would tell."
        found.append(Finding("seeds", words, [t.name for t in section.finished]))
    return found + _differing(section)


def stopped(section: Section) -> list[Finding]:
    """Trials that halving paused or a search's pruner stopped."""
    found = []
    for status, why in (("paused", "halving"), ("pruned", "the search's pruner")):
        trials = [trial for trial in section.trials if trial.status == status]
        if not trials:
            continue
        lengths = sorted({len(trial.epochs) for trial in trials})
        after = f"{lengths[0]}" if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]}"
        words = (
            f"{_of(section, trials)} {'was' if len(trials) == 1 else 'were'} {status} early by {why}, after {after} "
        )
        words += f"{'epoch' if lengths[-1] == 1 else 'epochs'}: what more epochs would have given is not known."
        words += "".join(_agreement(section, length) for length in lengths if status == "paused")
        found.append(Finding("unfinished", words, [trial.name for trial in trials]))
    return found


def _agreement(section: Section, epoch: int) -> str:
    """How far the ranks by which halving chose held in the trials that went on; "" where too few did."""
    known = rank_agreement([trial for trial in section.trials if "monitor" in trial.record], epoch)
    if known is None:
        return ""
    tau, later, count = known
    return (
        f" The ranks of the {count} trials that went on, after epochs {epoch} and {later}, agree by a Kendall's "
        f"tau of {tau:.2f} (1 is the same order, 0 no relation)."
    )


def _differing(section: Section) -> list[Finding]:
    """Trials that ran with several versions of the code, or on several devices."""
    found = []
    for field, words in (
        ("git_commit", "with {} versions of the code"),
        ("device", "on {} devices, so times do not compare"),
    ):
        by_value: dict[str, list[str]] = {}
        for trial in section.trials:
            if trial.record.get(field) is not None:
                by_value.setdefault(str(trial.record[field])[:40], []).append(trial.name)
        if len(by_value) > 1:
            told = f"The trials ran {words.format(len(by_value))}: {listing(list(by_value))}."
            found.append(Finding("code", told, [name for names in by_value.values() for name in names]))
    return found


def _cases(section: Section) -> dict[str, list[Case]]:
    """What is wrong with trials, by what it is called here; a trial that diverged is not called underfitted, too."""
    named = {own: kind for kind, kinds in TROUBLE.items() for own in kinds}
    told = {trial.name: _told(trial) for trial in section.trials}
    said: set[str] = set()
    found: dict[str, list[Case]] = {}
    for kind in TROUBLE:
        for trial in section.trials:
            case = next((case for case in told[trial.name] if named.get(case.kind) == kind), None)
            if kind == "underfitted":
                case = _underfitted(section, trial)
            if case is not None and (trial.name not in said or kind == "overfitted"):
                found.setdefault(kind, []).append(case)
                said.add(trial.name)
    for cases in told.values():  # kinds that this version does not know
        for case in cases:
            if case.kind not in named:
                found.setdefault(case.kind, []).append(case)
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


def _told(trial: Trial) -> list[Case]:
    """What the trial found wrong with itself, in its last epoch or in that of the kept checkpoint.

    One that did not come to write its result is judged by its curves, by the same rules.
    """
    if trial.result is None:
        rows = [row for row in trial.epochs if "train/loss" in row]
        seen = {"diverging_loss": diverging_loss(rows), "dead_learning": dead_learning(rows)} if rows else {}
        return [_case(trial, kind, words, "") for kind, words in seen.items() if words is not None]
    told = trial.result.get("findings")
    complete = {"kind", "epoch", "message"}
    found = []
    for one in told if isinstance(told, list) else []:
        if isinstance(one, dict) and complete <= one.keys() and (when := _when(trial, one)) is not None:
            found.append(_case(trial, str(one["kind"]), str(one["message"]), *when))
    return found


def _when(trial: Trial, finding: dict[str, Any]) -> tuple[str, str] | None:
    """Since when a finding holds, and whether the kept checkpoint has it; None if neither it nor the last epoch has."""
    since, recovered = number(finding["epoch"]), number(finding.get("recovered"))
    kept = trial.figure("monitor", "epoch")
    if since is None or kept is None:
        return None if recovered is not None else (f"since epoch {finding['epoch']}, ", "")
    in_kept = since <= kept and (recovered is None or kept < recovered)
    if recovered is not None:
        until = f"from epoch {since:g} until it recovered in epoch {recovered:g}, "
        return (until, f"; the kept checkpoint, of epoch {kept:g}, is from that time") if in_kept else None
    has = "has this too" if in_kept else "is from before"
    return f"since epoch {since:g}, ", f"; the kept checkpoint, of epoch {kept:g}, {has}"


def _case(trial: Trial, kind: str, message: str, before: str, after: str = "") -> Case:
    words, _, advice = message.rstrip(".").partition(". Try ")
    return Case(trial, kind, before + words + after, advice)


def _underfitted(section: Section, trial: Trial) -> Case | None:
    """A training metric that ends far below that of the best setting."""
    name = f"train/{section.metric}"
    unit = section.unit(name)
    if trial.best is None or section.mode != "max" or not unit.is_share:
        return None
    own = _last(trial, name)
    best = mean([value for t in section.judged[0].finished if (value := _last(t, name)) is not None])
    if own is None or best is None or not own < UNDERFITTED * best:
        return None
    words = f"{name} is only {unit.value(own)} in its last epoch, that of the best setting {unit.value(best)}"
    return Case(trial, "underfitted", words)


def _last(trial: Trial, name: str) -> float | None:
    return next((row[name] for row in trial.epochs[-1:] if name in row), None)

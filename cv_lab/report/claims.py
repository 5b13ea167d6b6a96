"""What a section says of its settings: the baseline, the best setting, effects, interactions."""

from collections.abc import Sequence

from cv_lab.report.evidence import constant_answer
from cv_lab.report.figures import pair_key
from cv_lab.report.finding import Finding, names_of
from cv_lab.report.sections import Section, Setting, mean, text
from cv_lab.report.statistics import bootstrap_interval
from cv_lab.report.verdicts import Effect, Ranking, Verdict, difference, effects, interactions, needed, place, rank
from cv_lab.report.wording import count, p_value, slug
from cv_lab.study.trials import number
from cv_lab.text import listing

USUAL = ("accuracy", "mean_iou", "mAP")  # metrics that have baselines, one of which each task but detection has
SEARCH = 20  # settings, from which on a parameter that never has a value twice counts as searched


def answer(section: Section) -> list[Finding]:
    """What was asked first: whether anything was learned at all, which setting is best, and how it was chosen."""
    ranking = rank(section)
    if ranking is None:
        return []
    found = [finding for finding in (_baseline(section, ranking.best), _best(section, ranking)) if finding]
    return [*found, _chosen(section)]


def claims(section: Section) -> list[Finding]:
    """What is said of the varied parameters."""
    return [*_parameters(section), *_interactions(section)]


def baseline_of(section: Section, metric: str) -> tuple[str, float] | None:
    """The most frequent class of the test set, and the test's figure of always answering it; None if not known."""
    for trial in section.finished:
        if (known := section.evidence.get(trial.name)) is not None:
            return known.baseline(metric)
        if (matrix := section.matrices.get(trial.name)) is not None:
            return constant_answer(matrix.counts.sum(1), matrix.classes, metric)
    return None


def test_mean(section: Section, setting: Setting, metric: str) -> float | None:
    """Mean over seeds of a setting's test figure."""
    return mean([v for trial in setting.finished if (v := trial.metric(f"test/{metric}")) is not None])


def _baseline(section: Section, best: Setting) -> Finding | None:
    """A finding if the best setting does not beat always giving the same answer.

    A loss that trials are judged by says nothing of such an answer; their accuracy, mean IoU or mAP then does.
    """
    metric = next((m for m in (section.metric, *USUAL) if baseline_of(section, m) is not None), section.metric)
    baseline = baseline_of(section, metric)
    if baseline is None or test_mean(section, best, metric) is None:
        return None
    name, value = baseline
    unit = section.unit(f"test/{metric}")
    beating = [s for s in section.judged if _beats(section, s, metric, value)]
    if best in beating:
        return None
    who = "The best setting by validation does not beat" if beating else "No setting is shown to beat"
    above = [s for s in section.judged if (figure := test_mean(section, s, metric)) is not None and figure > value]
    if not above:
        who = "No setting beats"
    words = f"{who} always answering “{name}”, which gives test/{metric} {unit.value(value)}."
    return Finding("baseline", words, names_of(section.judged), "trials", {"baseline": value, "class": name})


def _beats(section: Section, setting: Setting, metric: str, value: float) -> bool:
    """Whether a setting's test figure is above a baseline, beyond the chance of its images where that is known."""
    figure = test_mean(section, setting, metric)
    known = [section.evidence[trial.name] for trial in setting.finished if trial.name in section.evidence]
    scores = [one for evidence in known if (one := evidence.scores(metric)) is not None]
    interval = bootstrap_interval(scores) if len(scores) == len(setting.finished) else None
    return figure is not None and (figure if interval is None else interval[0]) > value


def _best(section: Section, ranking: Ranking) -> Finding:
    """The best setting, and how it compares with the others."""
    best, verdicts = ranking.best, ranking.verdicts
    numbers = {
        "mean": best.mean,
        "deviation": best.deviation,
        "seeds": len(best.scores),
        "settings": len(section.judged),
    }
    reached = f"{_reached(section, best)}{_tested(section, best)}"
    if not verdicts:
        which = f"The one setting with a result, {best.label}," if section.names else "The one setting"
        return Finding("only", f"{which} reaches {reached}.", names_of([best]), "", numbers)
    ends = "Highest" if section.mode == "max" else "Lowest"
    start = "Best" if ranking.wins and not verdicts[0].on_images else ends
    words = f"{start} of {len(section.judged)} settings is {best.label}: {reached}."
    compared = verdicts[0].comparison
    if compared is not None:
        numbers |= {"difference": compared.difference, "low": compared.low, "high": compared.high, "p": ranking.p}
    kind = "winner" if start == "Best" else "highest"
    words += _against(section, ranking)
    shown = [best, *(v.other for v in verdicts[:1]), *(v.other for v in verdicts[1:] if v.equal or v.open)]
    return Finding(kind, words, names_of(shown), "trials", numbers, compared.test if compared else "")


def _against(section: Section, ranking: Ranking) -> str:
    """Sentences on how the best setting compares with the others."""
    verdicts = ranking.verdicts
    nearest = verdicts[0]
    words = ""
    if equals := [v.other.label for v in verdicts if v.equal]:
        words += f" Equal to it {'is' if len(equals) == 1 else 'are'} {listing(equals, 4)}."
    rest = [v for v in verdicts if not v.equal]
    if not rest:
        return words
    if ranking.wins:
        far = "the other" if len(verdicts) == 1 else "all others; of the next"
        who = f"{far}, {nearest.other.label}," if len(verdicts) > 1 else nearest.other.label
        words += f" It is ahead of {who} {difference(section, nearest)}."
        return words + (" Another seed may turn this round." if nearest.on_images else "")
    if opened := [v for v in rest if v.open]:
        words += _not_told_apart(section, ranking, opened)
    elif rest[0].comparison is not None:
        words += f" It is ahead of the next, {rest[0].other.label}, {difference(section, rest[0])}."
    if unknown := [v for v in rest if v.comparison is None]:
        words += _not_compared(section, unknown)
    return words


def _not_told_apart(section: Section, ranking: Ranking, opened: Sequence[Verdict]) -> str:
    first = opened[0]
    if len(opened) == len(ranking.verdicts) > 1:
        return (
            f" It is not told apart from any of the other {len(opened)}: {place(first)} the next, "
            f"{first.other.label}, {difference(section, first)}; {needed(first)}."
        )
    names = listing([v.other.label for v in opened], 4)
    which = "it" if len(opened) == 1 else f"{first.other.label},"
    return f" It is not told apart from {names}: {place(first)} {which} {difference(section, first)}; {needed(first)}."


def _not_compared(section: Section, unknown: Sequence[Verdict]) -> str:
    """The next best where a single seed leaves open how much of a difference is chance."""
    nearest = unknown[0].other.mean
    level = [v.other for v in unknown if v.other.mean == nearest]
    unit = section.unit(section.monitor)
    distance = section.better(section.judged[0].mean, nearest)
    one = all(len(setting.scores) == 1 for setting in (section.judged[0], *level))
    seeds = "one seed each" if one else "one of the two has a single seed"
    return (
        f" Next {'comes' if len(level) == 1 else 'come'} {listing([s.label for s in level], 3)} with "
        f"{unit.value(nearest)}, {unit.gap(distance)} behind ({seeds}, so how much of it is chance is not known)."
    )


def _reached(section: Section, setting: Setting) -> str:
    unit, n = section.unit(section.monitor), len(setting.scores)
    seeds = "one seed" if n == 1 else f"mean ± standard deviation of {n} seeds"
    return f"{section.monitor} {unit.value(setting.mean)}{unit.spread(setting.deviation)} ({seeds})"


def _tested(section: Section, setting: Setting) -> str:
    """The test's figure with its interval over the images."""
    figure = test_mean(section, setting, section.metric)
    if figure is None:
        return ""
    unit, interval = section.unit(f"test/{section.metric}"), section.interval(setting.finished)
    words = f", test/{section.metric} {unit.value(figure)}"
    return words if interval is None else f"{words} {unit.interval(interval)} on {_images(section, setting)}"


def _images(section: Section, setting: Setting) -> str:
    return f"{section.tested[setting.example.name].n:,} test images"


def _chosen(section: Section) -> Finding:
    """On what was chosen, among how many, and what the test set had to do with it."""
    n = len(section.judged)
    images = {v for t in section.finished if (v := t.figure("images", "val")) is not None}
    on = f"{images.pop():,.0f} validation images" if len(images) == 1 else "the validation set"
    what = "epoch" if n == 1 else f"epoch and the setting of {n}"
    if not section.validated_on_test:
        return Finding("chosen", f"{section.monitor} on {on} chose the {what}.", [t.name for t in section.finished])
    whose = (
        "All trials" if len(section.validated_on_test) == len(section.finished) else
        f"{len(section.validated_on_test)} of {count(len(section.finished), 'finished trial')}"
    )  # fmt: skip
    words = f"{whose} validated on the test set, which so chose the {what}: the test figures are no unbiased estimate."
    return Finding("biased", words, [t.name for t in section.validated_on_test])


def _parameters(section: Section) -> list[Finding]:
    """For each varied parameter, whether it matters, and how well its values do at their best."""
    tested = {effect.names[0]: effect for effect in effects(section)}
    found = []
    for name in section.names:
        tops = _tops(section, name)
        if len(tops) < 2:
            continue
        if len(tops) == len(section.judged) >= SEARCH and len(section.names) > 1:
            found.append(_range(section, name))
            continue
        alone = len(section.names) == 1
        if name in tested and not (alone and len(section.judged) == 2):  # which were compared already
            found.append(_effect(section, tested[name]))
        elif not alone:
            found.append(_at_their_best(section, name, list(tops.values())))
        if (edge := _edge(name, tops)) is not None and (name not in tested or tested[name].claimed):
            found.append(edge)
    return found


def _effect(section: Section, effect: Effect) -> Finding:
    """Whether a parameter matters on average over all others."""
    (name,), (levels,) = effect.names, effect.levels
    unit, alone = section.unit(section.monitor), len(section.names) == 1
    ranked = sorted(range(len(levels)), key=lambda i: -section.better(float(effect.means[i]), 0.0))
    values = listing([f"{levels[i]} ({unit.value(effect.means[i])})" for i in ranked], 8)
    over = "" if alone else ", means over all other parameters"
    if absent := [value for value in _tops(section, name) if value not in levels]:
        over += f"; {listing(absent)} left out, where settings have no result"
    based = f"{over}; analysis of variance over {count(effect.seeds, 'seed')}, {p_value(effect.p)}"
    start = f"{name} matters" if effect.claimed else f"No effect of {name} is shown"
    numbers = {"p": effect.p, "seeds": effect.seeds, "means": dict(zip(levels, map(float, effect.means), strict=True))}
    kind, trials = "effect" if effect.claimed else "parameter", names_of(section.judged)
    words = f"{start}: {values}{based}."
    return Finding(kind, words, trials, _shown_by(section, name), numbers, "repeated-measures analysis of variance")


def _at_their_best(section: Section, name: str, ranked: list[Setting]) -> Finding:
    unit = section.unit(section.monitor)
    told = [f"{text(s.values[name])} ({unit.value(s.mean)}{_others(s, name)})" for s in ranked]
    words = f"Values of {name}, each at its best: {listing(told)}."
    return Finding("parameter", words, names_of(ranked), _shown_by(section, name))


def _shown_by(section: Section, name: str) -> str:
    other = next((other for other in section.names if other != name), None)
    return f"by_{slug(name)}" if other is None else pair_key(section, name, other)


def _interactions(section: Section) -> list[Finding]:
    """For pairs of parameters, whether the best value of one depends on the other."""
    tested = {effect.names: effect for effect in interactions(section)}
    found = []
    for i, a in enumerate(section.names):
        for b in section.names[i + 1 :]:
            given, asked = (b, a) if _numeric(section, a) and not _numeric(section, b) else (a, b)
            effect = tested.get((a, b))
            if effect is not None:
                found.append(_tested_interaction(section, effect, given, asked))
            elif (shown := _untested_interaction(section, given, asked)) is not None:
                found.append(shown)
    return found


def _tested_interaction(section: Section, effect: Effect, given: str, asked: str) -> Finding:
    show, trials = pair_key(section, given, asked), names_of(section.judged)
    numbers = {"p": effect.p, "seeds": effect.seeds}
    based = f"test over the whole grid, {count(effect.seeds, 'seed')}, {p_value(effect.p)}"
    test = "repeated-measures analysis of variance"
    if not effect.claimed:
        words = f"No interaction of {given} and {asked} is shown ({based})."
        return Finding("parameter", words, trials, show, numbers, test)
    means, levels = effect.means, effect.levels
    if effect.names[0] == asked:
        means, levels = means.T, levels[::-1]
    sign = 1 if section.mode == "max" else -1
    choices = {key: levels[1][int((sign * means[i]).argmax())] for i, key in enumerate(levels[0])}
    values = list(dict.fromkeys(choices.values()))
    tops = (
        f"the best {asked} is {values[0]} for every {given}, but by how much differs"
        if len(values) == 1
        else "the best figures are at " + listing([f"{value} for {key}" for key, value in choices.items()])
    )
    words = f"{asked} and {given} interact: {tops} ({based})."
    return Finding("interaction", words, trials, show, numbers, test)


def _untested_interaction(section: Section, given: str, asked: str) -> Finding | None:
    """Where one parameter does best for each value of the other; no claim, since one seed does not carry one."""
    best: dict[str, list[Setting]] = {}
    tried: dict[str, set[str]] = {}
    for setting in section.judged:
        key = text(setting.values[given])
        tops = best.setdefault(key, [])
        if not tops or setting.mean == tops[0].mean:
            tops.append(setting)
        tried.setdefault(key, set()).add(text(setting.values[asked]))
    choices = {k: list(dict.fromkeys(text(s.values[asked]) for s in best[k])) for k in best if len(tried[k]) > 1}
    if len(choices) < 2:
        return None
    trials = names_of([s for k in choices for s in best[k]])
    ends = "highest" if section.mode == "max" else "lowest"
    common = [v for v in next(iter(choices.values())) if all(v in values for values in choices.values())]
    if common:
        words = f"The {ends} figures are at {asked} {common[0]} for every {given} tried ({', '.join(choices)})."
    else:
        told = listing([f"{' or '.join(values)} for {key}" for key, values in choices.items()])
        words = f"The {ends} figures are at another {asked} for each {given} ({told}); this may be chance."
    return Finding("parameter", words, trials, pair_key(section, given, asked))


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
    return Finding("parameter", words, names_of(top), f"by_{slug(name)}")


def _edge(name: str, tops: dict[str, Setting]) -> Finding | None:
    """A best value that is the smallest or largest tried: beyond it may lie a better one."""
    numbers = {n: s for s in tops.values() if (n := number(s.values[name])) is not None}
    if len(numbers) < max(3, len(tops)) or name == "epochs":
        return None
    first = next(iter(numbers.values()))
    if any(setting.mean == first.mean for setting in list(numbers.values())[1:]):
        return None
    best = next(iter(numbers))
    end = "smallest" if best == min(numbers) else "largest" if best == max(numbers) else ""
    if not end or best == 0:
        return None
    words = f"The best {name}, {text(best)}, is the {end} tried: what lies beyond is not known."
    return Finding("edge", words, names_of([first]))


def _numeric(section: Section, name: str) -> bool:
    return all(number(setting.values[name]) is not None for setting in section.settings)

"""Whether settings differ: the best one against all others, effects of parameters, and interactions.

The best setting is the one with the best mean over its seeds of the monitored metric. It is called the winner only if
it is ahead of every other one; that needs no correction for their number, because all of these tests must succeed
(Gutmann and Maymin, 1987, Annals of Statistics 15:456-461). Any other statement is corrected by Holm's method.
"""

import math
from dataclasses import dataclass, replace
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from cv_lab.report.sections import Section, Setting, text
from cv_lab.report.statistics import (
    LEVEL,
    Comparison,
    compare_images,
    compare_seeds,
    effect_p_value,
    equal,
    holm,
    interaction_p_value,
    seeds_needed,
)
from cv_lab.report.wording import count, p_value


@dataclass(frozen=True)
class Verdict:
    """How the best setting compares with another.

    Attributes:
        other: the other setting.
        equal: they have exactly the same mean.
        comparison: None if equal, or where nothing says how much chance is in the difference.
        p: corrected for the number of comparisons; 1 without a comparison.
        on_images: the comparison is of two networks on the same images rather than of settings over seeds.
    """

    other: Setting
    equal: bool
    comparison: Comparison | None
    p: float
    on_images: bool

    @property
    def ahead(self) -> bool:
        """Whether the best setting is ahead of this one beyond chance."""
        return self.comparison is not None and self.comparison.difference > 0 and self.p < LEVEL

    @property
    def open(self) -> bool:
        """Whether the two are compared, and neither told apart nor equal."""
        return self.comparison is not None and not self.ahead


@dataclass(frozen=True)
class Ranking:
    """The best setting of a section and its verdicts over all others, the next best first.

    Attributes:
        best: of the best mean.
        verdicts: one for each other setting with a result.
        wins: the best is ahead of every other.
        p: of the weakest of these comparisons; 1 if some could not be made.
    """

    best: Setting
    verdicts: list[Verdict]
    wins: bool
    p: float


def rank(section: Section) -> Ranking | None:
    """Compare the best setting with all others; None if no setting has a result."""
    if not section.judged:
        return None
    best, *others = section.judged
    found = [_compare(section, best, other) for other in others]
    known = [i for i, comparison in enumerate(found) if comparison is not None]
    # Where the best was picked by the very scores that are compared, it might have been any of the settings.
    images = [_on_images(best, other) for other in others]
    picked = len(section.judged) / 2
    raw = [
        min(1.0, found[i].p * (1 if images[i] and not section.validated_on_test else picked))  # type: ignore[union-attr]
        for i in known
    ]
    corrected = dict(zip(known, holm(raw), strict=True))
    verdicts = []
    for i, (other, comparison) in enumerate(zip(others, found, strict=True)):
        same = equal(best.mean, other.mean)
        verdicts.append(Verdict(other, same, None if same else comparison, corrected.get(i, 1.0), images[i]))
    p = max((c.p if c is not None and c.difference > 0 else 1.0 for c in found), default=1.0)
    return Ranking(best, verdicts, p < LEVEL, p)


def difference(section: Section, verdict: Verdict) -> str:
    """The difference with its interval and what it rests on: "by 4.30 points [2.5, 6.0] over 3 seeds (...)"."""
    compared = verdict.comparison
    assert compared is not None
    unit = section.unit(section.monitor)
    size = f"by {unit.gap(abs(compared.difference))} {unit.interval(_turned(compared))}"
    if compared.difference == 0:
        size = unit.interval((compared.low, compared.high))
    p = p_value(compared.p)
    if compared.p < LEVEL <= verdict.p:
        p += f", {p_value(verdict.p)} corrected for the number of comparisons"
    if verdict.on_images:
        return f"{size} on the same {compared.n:,} test images, one seed each ({compared.test}, {p})"
    return f"{size} over {count(compared.n, 'seed')} ({compared.test}, {p})"


def place(verdict: Verdict) -> str:
    """Where the best setting is by the comparison: "it is ahead of", "it is behind" or "it is level with" the other."""
    compared = verdict.comparison
    assert compared is not None
    where = "ahead of" if compared.difference > 0 else "behind" if compared.difference < 0 else "level with"
    return f"{'on the test ' if verdict.on_images else ''}it is {where}"


def needed(verdict: Verdict) -> str:
    """How many seeds would tell two settings apart, in words."""
    compared = verdict.comparison
    if compared is None or compared.deviation is None:
        return "more seeds would tell"
    seeds = seeds_needed(compared.difference, compared.deviation)
    return "more than 1,000 seeds would be needed" if seeds is None else f"about {seeds} seeds would tell"


def _turned(compared: Comparison) -> tuple[float, float]:
    """The interval of the size of a difference, whatever its sign."""
    ends = (compared.low, compared.high)
    return ends if compared.difference >= 0 else (-ends[1], -ends[0])


def _compare(section: Section, best: Setting, other: Setting) -> Comparison | None:
    if not _on_images(best, other):
        sign = 1 if section.mode == "max" else -1
        scores = ({seed: sign * v for seed, v in s.scores_by_seed.items()} for s in (best, other))
        return compare_seeds(*scores)
    a, b = best.example.name, other.example.name
    if not {a, b} <= section.tested.keys():
        return None
    if section.evidence[a].images is None or section.evidence[a].images != section.evidence[b].images:
        return None
    first, second = section.tested[a], section.tested[b]
    if section.mode == "min":
        first, second = second, first
    return compare_images(first, second, exact=section.metric == "accuracy")


def _on_images(best: Setting, other: Setting) -> bool:
    """Two settings of one seed each are compared by what their tests say of the same images."""
    return len(best.scores) == len(other.scores) == 1


@dataclass(frozen=True)
class Effect:
    """Whether one parameter, or how two work together, matters in the whole grid.

    Attributes:
        names: one parameter, or two.
        means: of the monitored metric over seeds and all else, (levels,) or (levels, levels).
        levels: values of each parameter, as text.
        p: corrected for the number of parameters, or of pairs.
        seeds: how many all cells share.
    """

    names: tuple[str, ...]
    means: NDArray[np.floating]
    levels: list[list[str]]
    p: float
    seeds: int

    @property
    def claimed(self) -> bool:
        return self.p < LEVEL


def effects(section: Section) -> list[Effect]:
    """The main effect of each varied parameter, where the settings are a grid with at least two seeds."""
    return _tests(section, 1)


def interactions(section: Section) -> list[Effect]:
    """The interaction of each pair of varied parameters, where the settings are a grid with at least two seeds."""
    return _tests(section, 2)


def _tests(section: Section, size: int) -> list[Effect]:
    grid = _grid(section)
    if grid is None:
        return []
    scores, levels = grid
    found = []
    for axes in combinations(range(len(levels)), size):
        if min(len(levels[i]) for i in axes) < 2:
            continue
        others = tuple(i + 1 for i in range(len(levels)) if i not in axes)
        cells = scores.mean(others)
        p = effect_p_value(cells) if size == 1 else interaction_p_value(cells)
        names = tuple(section.names[i] for i in axes)
        found.append(Effect(names, cells.mean(0), [levels[i] for i in axes], p, len(cells)))
    corrected = holm([effect.p for effect in found])
    return [replace(effect, p=p) for effect, p in zip(found, corrected, strict=True)]


def _grid(section: Section) -> tuple[NDArray[np.floating], list[list[str]]] | None:
    """Scores by seed and by the value of each varied parameter.

    Values of parameters for which settings have no result are left out, as few as will do.

    Returns:
        float (seeds, levels of the first, levels of the second, ...) and the levels; None where the settings are no
        grid, or share less than two seeds.
    """
    cells = {tuple(text(value) for value in s.values.values()): s.scores_by_seed for s in section.judged}
    levels = [list(dict.fromkeys(at[i] for at in cells)) for i in range(len(section.names))]
    if not cells or not levels or math.prod(map(len, levels)) > 2 * len(cells):
        return None  # a search rather than a grid
    while missing := [at for at in product(*levels) if at not in cells]:
        gaps = {(i, value): sum(at[i] == value for at in missing) for i, own in enumerate(levels) for value in own}
        axis, value = max(gaps, key=lambda key: (gaps[key], len(levels[key[0]])))
        levels[axis].remove(value)
    seeds = sorted(set.intersection(*(set(cells[at]) for at in product(*levels))))
    if len(seeds) < 2:
        return None
    scores = [[cells[at][seed] for at in product(*levels)] for seed in seeds]
    return np.reshape(scores, (len(seeds), *map(len, levels))), levels

"""Which charts a section of a report has, and what they show."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from cv_lab.colours import palette
from cv_lab.report.chart import DASHES, GREY, Axis, Cell, Chart, Key, Row, Series, bars, dots, heat_map, plot, sheet
from cv_lab.report.sections import Section, Setting, loss_of, mean, text
from cv_lab.report.wording import count, seconds, slug
from cv_lab.study.trials import number

COLORS = 10  # lines that eyes tell apart in one chart; beyond that each setting gets a chart
PANELS = 12  # small multiples at most
GRID = (12, 16)  # rows and columns of a heat map at most
CLASSES = 24  # bars of classes at most
PAIRS = 3  # heat maps at most


@dataclass(frozen=True)
class Figure:
    """Charts that belong together.

    Attributes:
        key: of its file and its anchor, letters and digits.
        title: above.
        caption: what is seen.
        charts: at least one.
        legend: of what the charts share.
    """

    key: str
    title: str
    caption: str
    charts: list[Chart]
    legend: list[Key]

    def svg(self) -> str:
        """All of it in one picture, as a file of its own."""
        return sheet(self.charts, self.legend).svg(standalone=True)


def colors(section: Section) -> dict[str, str]:
    """A colour for each setting, by its label; grey for all where there are too many to tell apart."""
    labels = [setting.label for setting in section.settings]
    if len(labels) > COLORS:
        return dict.fromkeys(labels, GREY)
    return dict(zip(labels, (hex_of(rgb) for rgb in palette(len(labels)).tolist()), strict=True))


def curves(section: Section) -> list[Figure]:
    """Loss and metric of every epoch in training and validation."""
    names = ["loss"] if section.metric in ("loss", "") else ["loss", section.metric]
    settings = [s for s in section.settings if any(trial.epochs for trial in s.trials)]
    if not settings:
        return []
    if len(section.settings) <= COLORS:
        charts = [
            _curves_of_all(section, group, f"{split}/{name}", title)
            for name in names
            for split, word in (("train", "training"), ("val", "validation"))
            for group, title in _by_loss(section, settings, name, f"{name}, {word}")
            if any(trial.curve(f"{split}/{name}") for setting in group for trial in setting.trials)
        ]
        if not charts:
            return []
        present = {s.label for s in settings}
        legend = [Key(c, name, _dash(section, name)) for name, c in colors(section).items() if name in present]
        caption = "Every epoch of every trial, of running and failed ones as far as they came."
        if section.seeds > 1:
            caption += (
                " A line is the mean over the finished seeds of a setting, its band reaches from the lowest to the "
                "highest seed; epochs that only some seeds reached, and unfinished seeds, are paler lines of their own."
            )
        return [Figure("curves", "Curves", caption, charts, legend)]
    shown = settings[:PANELS]
    figures = []
    for i, name in enumerate(names):
        charts = [chart for setting in shown if (chart := _curves_of_one(section, setting, settings, name))]
        if charts:
            which = (
                "every setting" if len(shown) == len(settings) else f"the best {len(shown)} of {len(settings)} settings"
            )
            caption = (
                f"One chart for {which}, best first: training dashed, validation drawn through; "
                "in grey the validation of the others shown."
            )
            legend = [Key("#0072b2", "validation", ""), Key("#d55e00", "training", DASHES[1])]
            key = f"curves_{slug(name)}" if i else "curves"
            figures.append(Figure(key, f"Curves of the {name}", caption, charts, legend))
    return figures


def swept(section: Section) -> list[Figure]:
    """How the result depends on what was varied: a line or dots for one parameter, a heat map for a pair."""
    judged = section.judged
    names = [name for name in section.names if len({str(s.values[name]) for s in judged}) > 1]
    if not names:
        return []
    if len(names) == 1:
        return [_one(section, names[0])]
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    figures = [f for a, b in pairs if (f := _pair(section, *_rows_and_columns(section, a, b), len(names)))][:PAIRS]
    shown = {figure.key for figure in figures}
    covered = {name for a, b in pairs if pair_key(section, a, b) in shown for name in (a, b)}
    return figures + [_one(section, name) for name in names if name not in covered and _numeric(section, name)]


def cost(section: Section) -> list[Figure]:
    """The monitored metric against the seconds of training, a point for each setting."""
    points = _costs(section)
    if len(points) < 2:
        return []
    times = [spent for _, spent in points]
    color, unit = colors(section), section.unit(section.monitor)
    series = [
        Series(
            [(spent, setting.mean)],
            color[setting.label],
            f"{setting.label}: {unit.value(setting.mean)} in {seconds(spent)} s",
            line=False,
            dots=5,
            opacity=0.85 if len(points) < 100 else 0.5,
        )
        for setting, spent in points
    ]
    front = front_of(section)
    if len(front) > 1:
        line = [(spent, setting.mean) for setting, spent in front]
        series.insert(0, Series(line, GREY, "no setting is both faster and better", dash=DASHES[1]))
    wide = max(times) > 20 * min(times)
    title = f"{section.monitor} against cost"
    chart = plot(series, title, Axis("seconds of training", log=wide), Axis("", percent=unit.is_share))
    legend = [Key(color, name) for name, color in color.items()] if len(section.settings) <= COLORS else []
    caption = (
        "A point for each setting, the mean over its seeds. On the dashed line lie those that no other beats in both; "
        "times of equal work differ by chance."
    )
    return [Figure("cost", title, caption, [chart], legend)]


def classes(section: Section) -> list[Figure]:
    """Images or pixels of each class in the test set."""
    known = next((e for t in section.finished if (e := section.evidence.get(t.name)) is not None), None)
    if known is None:
        return []
    counts = known.counts()
    if not counts:
        return []
    order = sorted(range(len(counts)), key=lambda k: -counts[k])[:CLASSES]
    rows = [
        (known.classes[k], counts[k], f"{counts[k]:,} ({100 * counts[k] / (sum(counts) or 1):.1f} %)") for k in order
    ]
    what = "images" if "truth" in known.arrays else "labelled pixels"
    more = f" The {len(order)} most frequent of {len(counts)} classes." if len(order) < len(counts) else ""
    caption = f"{what.capitalize()} of each class in the test set, and their share.{more}"
    return [Figure("classes", "Classes of the test set", caption, [bars(rows, f"{what} of each class")], [])]


def pair_key(section: Section, a: str, b: str) -> str:
    """Key of the heat map of two parameters."""
    down, across = _rows_and_columns(section, a, b)
    return f"heat_map_{slug(down)}_x_{slug(across)}"


def front_of(section: Section) -> list[tuple[Setting, float]]:
    """The settings that no other beats in both metric and seconds of training, fastest first, with these seconds."""
    front: list[tuple[Setting, float]] = []
    for point in sorted(_costs(section), key=lambda p: (p[1], -section.better(p[0].mean, 0.0))):
        if not front or section.better(point[0].mean, front[-1][0].mean) > 0:
            front.append(point)
    return front


def _costs(section: Section) -> list[tuple[Setting, float]]:
    """Settings with their seconds of training, means over seeds."""
    times = [
        (setting, mean([spent for trial in setting.finished if (spent := trial.figure("seconds", "fit"))]))
        for setting in section.judged
    ]
    return [(setting, spent) for setting, spent in times if spent is not None]


def _by_loss(section: Section, settings: Sequence[Setting], name: str, title: str) -> list[tuple[list[Setting], str]]:
    """Settings that may share an axis, and its title: values of different loss functions do not compare."""
    if name != "loss" or len(section.losses) == 1:
        return [(list(settings), title)]
    groups = [[s for s in settings if loss_of(s.trials[0]) == loss] for loss in section.losses]
    return [(group, f"{title}, {loss_of(group[0].trials[0])}") for group in groups if group]


def _curves_of_all(section: Section, settings: Sequence[Setting], name: str, title: str) -> Chart:
    series = [one for setting in settings for one in _curve_of(section, setting, name)]
    return plot(series, title, Axis("epoch", whole=True), _axis(section, name, series))


def _curve_of(section: Section, setting: Setting, name: str) -> list[Series]:
    """The mean over the finished seeds with the band of their values, and alone what goes on beyond it."""
    color, dash = colors(section)[setting.label], _dash(section, setting.label)
    curves = {trial.name: dict(trial.curve(name)) for trial in setting.trials}
    finished = [curve for trial in setting.finished if (curve := curves[trial.name])]
    common = sorted(set.intersection(*map(set, finished))) if len(finished) > 1 else []
    series = []
    if common:
        values = [[curve[epoch] for curve in finished] for epoch in common]
        points = [(epoch, statistics.fmean(some)) for epoch, some in zip(common, values, strict=True)]
        band = [(min(some), max(some)) for some in values]
        words = f"{setting.label}, mean of {count(len(finished), 'seed')}"
        series.append(Series(points, color, words, dash=dash, band=band))
    for trial in setting.trials:
        averaged = common if trial.best is not None and curves[trial.name] else []
        rest = [(epoch, value) for epoch, value in curves[trial.name].items() if not averaged or epoch >= averaged[-1]]
        if len(rest) > 1 or not averaged:
            series.append(Series(rest, color, section.label(trial), dash=dash, opacity=0.6 if common else 1.0))
    return series


def _curves_of_one(section: Section, setting: Setting, settings: Sequence[Setting], name: str) -> Chart | None:
    others = [
        Series(trial.curve(f"val/{name}"), GREY, section.label(trial), opacity=0.25)
        for other in settings[:PANELS]
        if other is not setting and (name != "loss" or loss_of(other.trials[0]) == loss_of(setting.trials[0]))
        for trial in other.trials[:1]
    ]
    own = [
        Series(trial.curve(f"{split}/{name}"), color, f"{section.label(trial)}, {split}", dash=dash)
        for trial in setting.trials
        for split, color, dash in (("train", "#d55e00", DASHES[1]), ("val", "#0072b2", ""))
    ]
    if not any(one.points for one in own):
        return None
    return plot(others + own, setting.label, Axis("epoch", whole=True), _axis(section, f"val/{name}", others + own))


def _axis(section: Section, name: str, series: Sequence[Series]) -> Axis:
    """Of a metric; logarithmic for losses that span decades, as where one trial diverged."""
    values = [value for one in series for _, value in one.points]
    share = section.unit(name).is_share
    log = not share and min(values) > 0 and max(values) > 30 * min(values)
    return Axis("logarithmic" if log else "", log=log, percent=share)


def _one(section: Section, name: str) -> Figure:
    """The monitored metric over one parameter: a line if it is a number, else a row of dots for each value."""
    judged = section.judged
    alone = len(section.names) == 1
    title = f"{section.monitor} by {name}"
    unit = section.unit(section.monitor)
    shares = unit.is_share
    seeds = (
        f" The bars are the standard deviation over up to {count(section.seeds, 'seed')}." if section.seeds > 1 else ""
    )
    if not _numeric(section, name):
        rows = [Row(text(s.values[name]), s.scores, s.mean, s.deviation) for s in judged[: 2 * PANELS]]
        rings = "the mean of each value, best first, rings for single seeds" if seeds else "each value, best first"
        caption = f"A dot for {rings}.{seeds}"
        chart = dots(rows, title, Axis(section.monitor, percent=shares))
        return Figure(f"by_{slug(name)}", f"Effect of {name}", caption, [chart], [])
    found = sorted((float(s.values[name]), s) for s in judged if number(s.values[name]) is not None)
    xs = [x for x, _ in found]
    log = min(xs) > 0 and max(xs) >= 10 * min(xs)
    single = [
        Series(
            [(x, score)],
            "#0072b2",
            f"{section.label(trial)}: {unit.value(score)}",
            False,
            dots=3,
            opacity=0.6,
        )
        for x, s in found
        for trial in s.trials
        if (score := trial.best) is not None
    ]
    if alone:
        means = [(x, s.mean) for x, s in found]
        bars = [s.deviation or 0.0 for _, s in found] if section.seeds > 1 else []
        single.insert(0, Series(means, "#0072b2", "mean", dots=4, bars=bars))
    ticks = sorted(set(xs)) if len(set(xs)) <= 6 else None
    chart = plot(single, title, Axis(name, log, ticks=ticks), Axis("", percent=shares))
    joined = "The line joins means. " if seeds else ""
    caption = f"{joined if alone else 'A point for each trial, whatever the other parameters. '}" + (
        "The axis of the parameter is logarithmic." if log else ""
    )
    return Figure(f"by_{slug(name)}", f"Effect of {name}", caption + seeds, [chart], [])


def _pair(section: Section, down: str, across: str, varied: int) -> Figure | None:
    """A heat map of two parameters; None where one has too many values to stand in rows."""
    rows, columns = _values(section, down), _values(section, across)
    if len(rows) > GRID[0] or len(columns) > GRID[1]:
        return None
    cells_of: dict[tuple[str, str], list[Setting]] = {}
    for setting in section.settings:  # best first
        cells_of.setdefault((text(setting.values[down]), text(setting.values[across])), []).append(setting)
    tops = {key: settings[0].mean for key, settings in cells_of.items() if settings[0].scores}
    worst, best = sorted((min(tops.values()), max(tops.values())), key=lambda value: section.better(value, 0.0))
    unit = section.unit(section.monitor)
    cells = []
    for row in rows:
        line = []
        for column in columns:
            settings = cells_of.get((row, column), [])
            value = tops.get((row, column))
            if value is None:
                line.append(Cell(settings[0].trials[0].status if settings else "not tried"))
                continue
            shade = 1.0 if best == worst else (value - worst) / (best - worst)
            scatter = unit.spread(settings[0].deviation).strip()
            hint = f"{settings[0].label}: {unit.value(value)}, {count(len(settings[0].scores), 'seed')}"
            line.append(Cell(unit.value(value), scatter, shade, value == best, hint))
        cells.append(line)
    title = f"{section.monitor} by {down} and {across}"
    caption = "The stronger the colour the better; the best is framed."
    if varied > 2:
        caption += " Of all trials with these two values the best setting is shown."
    if section.seeds > 1:
        caption += " Means over seeds, with the standard deviation below."
    key = pair_key(section, down, across)
    return Figure(key, f"{down} and {across}", caption, [heat_map(rows, columns, cells, title, down, across)], [])


def _rows_and_columns(section: Section, a: str, b: str) -> tuple[str, str]:
    """Numbers run from left to right, names from top to bottom."""
    return (b, a) if _numeric(section, a) and not _numeric(section, b) else (a, b)


def _numeric(section: Section, name: str) -> bool:
    return all(number(setting.values[name]) is not None for setting in section.settings)


def _values(section: Section, name: str) -> list[str]:
    """A parameter's values as text: numbers in order, names as they come, best first."""
    values = [setting.values[name] for setting in section.settings]
    if _numeric(section, name):
        values.sort()
    return list(dict.fromkeys(text(value) for value in values))


def _dash(section: Section, label: str) -> str:
    """The pattern of a setting's lines."""
    labels = [setting.label for setting in section.settings]
    return DASHES[labels.index(label) % len(DASHES)]


def _readable(rgb: Sequence[int]) -> list[float]:
    """The colour, if need be darker or lighter, so that it has a contrast of 3 on the light and on the dark page.

    Contrast and luminance are those of the Web Content Accessibility Guidelines 2.2.
    """
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (value / 255 for value in rgb)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    lowest, highest = 0.13, 0.29  # a contrast of 3 to #15171b and to white
    if luminance > highest:
        linear = [v * highest / luminance for v in linear]
    elif luminance < lowest:
        linear = [v + (1 - v) * (lowest - luminance) / (1 - luminance) for v in linear]
    return [255 * (12.92 * v if v <= 0.0031308 else 1.055 * v ** (1 / 2.4) - 0.055) for v in linear]


def hex_of(rgb: Sequence[int]) -> str:
    """A colour for lines on light and on dark ground, such as "#0072b2"."""
    return "#{:02x}{:02x}{:02x}".format(*(round(value) for value in _readable(rgb)))

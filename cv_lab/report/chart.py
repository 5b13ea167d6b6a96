"""Charts as SVG, written out by hand.

Matplotlib takes a second to import and 40 ms for each axis, which is longer than a report of 50 trials may take; its
pictures know one ground, too. These take their ink from the page (`currentColor`), so one picture serves light, dark
and paper, its text can be searched, and every mark tells its trial when pointed at.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 420, 270
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 30, 44
FONT = 12
CHARACTER = 6.6  # pixels, of the mean letter at that size
BLUE = "#0072b2"
GREY = "#8a8a8a"
DARKEST = 0.7  # of a cell's shade: the ink of the page keeps a contrast of 4.5 on it, on light and on dark paper
DASHES = ("", "7 3", "2 2", "8 3 2 3")  # so that lines can be told apart without their colours

# What a picture needs beside the page, in a file of its own.
STYLE = (
    "<style>svg{font-family:system-ui,sans-serif;color:#222;background:#fff}"
    "@media(prefers-color-scheme:dark){svg{color:#ddd;background:#15171b}}</style>"
)


@dataclass(frozen=True)
class Chart:
    """The inside of an SVG and its size in pixels."""

    body: str
    width: float
    height: float
    name: str

    def svg(self, standalone: bool = False, place: str = "") -> str:
        """The picture, for a page or as a file of its own."""
        head = 'xmlns="http://www.w3.org/2000/svg" ' if standalone else ""
        return (
            f'<svg {head}{place}viewBox="0 0 {self.width:.0f} {self.height:.0f}" width="{self.width:.0f}" '
            f'height="{self.height:.0f}" font-size="{FONT}" role="img" aria-label="{escape(self.name)}">'
            f"{STYLE if standalone else ''}{self.body}</svg>"
        )


@dataclass(frozen=True)
class Key:
    """An entry of a legend: colour, label, and the pattern of its line, None for a dot."""

    color: str
    label: str
    dash: str | None = None

    def sample(self) -> str:
        """Its mark, 28 x 10 pixels."""
        if self.dash is None:
            return f'<circle cx="14" cy="5" r="4.5" fill="{self.color}"/>'
        dash = f' stroke-dasharray="{self.dash}"' if self.dash else ""
        return f'<line x1="0" y1="5" x2="28" y2="5" stroke="{self.color}" stroke-width="2.2"{dash}/>'


@dataclass(frozen=True)
class Series:
    """A line, or points alone.

    Attributes:
        points: (x, y), finite.
        color: such as "#0072b2".
        label: what is told when it is pointed at.
        line: whether the points are joined.
        dash: pattern of the line as in SVG, such as "6 3"; "" draws it through.
        dots: radius of the points; 0 for none.
        bars: half the height of the error bar at each point.
        band: lowest and highest value at each point, filled in pale colour behind the line.
        opacity: 0..1.
    """

    points: Sequence[tuple[float, float]]
    color: str
    label: str
    line: bool = True
    dash: str = ""
    dots: float = 0
    bars: Sequence[float] = ()
    band: Sequence[tuple[float, float]] = ()
    opacity: float = 1.0


@dataclass(frozen=True)
class Axis:
    """Its label, whether it is logarithmic, how its numbers are written, and which numbers alone may stand at it."""

    label: str
    log: bool = False
    percent: bool = False
    ticks: Sequence[float] | None = None
    whole: bool = False


@dataclass(frozen=True)
class Cell:
    """Of a heat map: its text, a smaller line below, how dark in 0..1 (None: no value), whether best, and a hint."""

    text: str
    small: str = ""
    shade: float | None = None
    best: bool = False
    hint: str = ""


def plot(
    series: Sequence[Series], title: str, x: Axis, y: Axis, labels: Sequence[tuple[float, float, str]] = ()
) -> Chart:
    """Lines and points between two axes.

    Args:
        series: drawn in this order; those without points are left out. At least one must have some.
        title: above.
        x: the axis below.
        y: the axis on the left.
        labels: texts at points (x, y).
    """
    series = [one for one in series if one.points]
    across = _Scale([p[0] for one in series for p in one.points], LEFT, WIDTH - RIGHT, x)
    reach = [v for one in series for (_, v), bar in zip(one.points, one.bars, strict=False) for v in (v - bar, v + bar)]
    reach += [value for one in series for ends in one.band for value in ends]
    up = _Scale([p[1] for one in series for p in one.points] + reach, HEIGHT - BOTTOM, TOP, y)
    parts = [_text(LEFT, 17, title, weight="600"), _axes(across, up, x, y)]
    for one in series:
        places = [(across(a), up(b)) for a, b in one.points]
        parts.append(f'<g opacity="{one.opacity:g}"><title>{escape(one.label)}</title>')
        if one.band and len(places) > 1:
            edge = [(a, up(high)) for (a, _), (_, high) in zip(places, one.band, strict=True)]
            edge += [(a, up(low)) for (a, _), (low, _) in reversed(list(zip(places, one.band, strict=True)))]
            path = " ".join(f"{a:.1f},{b:.1f}" for a, b in edge)
            parts.append(f'<polygon points="{path}" fill="{one.color}" fill-opacity="0.18"/>')
        if one.line and len(places) > 1:
            dash = f' stroke-dasharray="{one.dash}"' if one.dash else ""
            path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{one.color}" stroke-width="1.8"{dash}/>')
        for (a, _), (_, value), bar in zip(places, one.points, one.bars, strict=False):
            parts.append(_line(a, up(value - bar), a, up(value + bar), stroke=one.color, width=1.5))
        radius = one.dots or (2.5 if one.line and len(places) == 1 else 0)
        if radius:
            parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="{radius:g}" fill="{one.color}"/>' for a, b in places]
        parts.append("</g>")
    for a, b, words in labels:
        right = across(a) > (LEFT + WIDTH) / 2
        parts.append(
            _text(across(a) + (-7 if right else 7), up(b) - 6, words, anchor="end" if right else "start", size=11)
        )
    return Chart("".join(parts), WIDTH, HEIGHT, title)


def heat_map(
    rows: Sequence[str], columns: Sequence[str], cells: Sequence[Sequence[Cell]], title: str, down: str, across: str
) -> Chart:
    """A table of shaded cells.

    Args:
        rows: names, from top to bottom.
        columns: names, from left to right.
        cells: by row, then by column.
        title: above.
        down: what the rows are.
        across: what the columns are.
    """
    cell_width, cell_height, top = 86, 46, 62
    left = 14 + CHARACTER * max(len(shorten(name, 24)) for name in (*rows, down))
    width = max(left + cell_width * len(columns) + 8, 14 + CHARACTER * 1.05 * len(title))
    parts = [_text(4, 17, title, weight="600"), _text(left, 37, across, opacity=0.7), _text(4, 55, down, opacity=0.7)]
    for j, name in enumerate(columns):
        parts.append(_text(left + cell_width * (j + 0.5), 55, shorten(name, 13), anchor="middle"))
    for i, name in enumerate(rows):
        y = top + cell_height * i
        parts.append(_text(4, y + cell_height / 2 + 4, shorten(name, 24)))
        for j, cell in enumerate(cells[i]):
            x = left + cell_width * j
            parts.append(f"<g><title>{escape(cell.hint)}</title>")
            fill = "none" if cell.shade is None else BLUE
            opacity = 0 if cell.shade is None else 0.05 + (DARKEST - 0.05) * cell.shade
            edge = "currentColor" if cell.best or cell.shade is None else "none"
            parts.append(
                f'<rect x="{x + 1:.1f}" y="{y + 1}" width="{cell_width - 2}" height="{cell_height - 2}" rx="3" '
                f'fill="{fill}" fill-opacity="{opacity:.2f}" stroke="{edge}" stroke-width="{2.5 if cell.best else 1}" '
                f'stroke-opacity="{1 if cell.best else 0.2}"/>'
            )
            middle, raised = x + cell_width / 2, 5 if cell.small else 0
            weight = "600" if cell.best else "400"
            parts.append(_text(middle, y + cell_height / 2 + 4 - raised, cell.text, "middle", weight=weight))
            if cell.small:
                parts.append(_text(middle, y + cell_height / 2 + 14, cell.small, "middle", size=10))
            parts.append("</g>")
    return Chart("".join(parts), width, top + cell_height * len(rows) + 8, title)


@dataclass(frozen=True)
class Row:
    """Of a chart of dots: its name, its single values, and their mean and deviation."""

    name: str
    values: Sequence[float]
    mean: float
    deviation: float | None
    color: str = BLUE


def dots(rows: Sequence[Row], title: str, axis: Axis) -> Chart:
    """One line a row: a ring for each value, a dot for their mean, a bar for their deviation."""
    left, step = 14 + CHARACTER * max(len(shorten(row.name, 30)) for row in rows), 26
    width, bottom = left + 300, TOP + step * len(rows)
    ends = [v for row in rows for v in (*row.values, row.mean - (row.deviation or 0), row.mean + (row.deviation or 0))]
    scale = _Scale(ends, left, width - RIGHT, axis)
    parts = [_text(4, 17, title, weight="600")]
    for tick, words in scale.ticks():
        parts.append(_line(scale(tick), TOP, scale(tick), bottom, opacity=0.15))
        parts.append(_text(scale(tick), bottom + 16, words, "middle", size=11))
    parts.append(_text((left + width - RIGHT) / 2, bottom + 34, axis.label, "middle", opacity=0.7))
    for i, row in enumerate(rows):
        y = TOP + step * (i + 0.5)
        parts.append(f"<g><title>{escape(row.name)}</title>{_text(4, y + 4, shorten(row.name, 30))}")
        if row.deviation is not None:
            ends = [scale(row.mean - row.deviation), scale(row.mean + row.deviation)]
            parts.append(_line(ends[0], y, ends[1], y, stroke=row.color, width=3, opacity=0.5))
        for value in row.values if len(row.values) > 1 else ():
            parts.append(f'<circle cx="{scale(value):.1f}" cy="{y}" r="3.5" fill="none" stroke="{row.color}"/>')
        parts.append(f'<circle cx="{scale(row.mean):.1f}" cy="{y}" r="4.5" fill="{row.color}"/></g>')
    return Chart("".join(parts), width, bottom + 44, title)


def bars(rows: Sequence[tuple[str, float, str]], title: str) -> Chart:
    """One bar a row, from zero: its name, its value, which is not negative, and the value as text."""
    left, step, reach = 14 + CHARACTER * max(len(shorten(name, 24)) for name, *_ in rows), 22, 260
    top = max(value for _, value, _ in rows) or 1
    parts = [_text(4, 17, title, weight="600")]
    for i, (name, value, words) in enumerate(rows):
        y, long = TOP + step * i, reach * value / top
        parts.append(f"<g><title>{escape(f'{name}: {words}')}</title>{_text(4, y + 15, shorten(name, 24))}")
        parts.append(f'<rect x="{left:.1f}" y="{y + 4}" width="{long:.1f}" height="14" fill="{BLUE}"/>')
        parts.append(_text(left + long + 6, y + 15, words, size=11) + "</g>")
    end = max(CHARACTER * len(words) for *_, words in rows)
    return Chart("".join(parts), left + reach + 6 + end, TOP + step * len(rows) + 8, title)


def sheet(charts: Sequence[Chart], legend: Sequence[Key], columns: int = 2) -> Chart:
    """Several charts in one picture, with their legend below."""
    columns = min(columns, len(charts))
    width, height = max(chart.width for chart in charts), max(chart.height for chart in charts)
    parts = [
        chart.svg(place=f'x="{width * (i % columns):.0f}" y="{height * (i // columns):.0f}" ')
        for i, chart in enumerate(charts)
    ]
    y = height * -(-len(charts) // columns)
    for key in legend:
        y += 20
        parts += [f'<g transform="translate(8 {y - 9:.0f})">{key.sample()}</g>', _text(42, y, key.label)]
    longest = max((42 + CHARACTER * len(key.label) for key in legend), default=0)
    return Chart("".join(parts), max(width * columns, longest), y + (14 if legend else 0), charts[0].name)


def shorten(words: str, limit: int) -> str:
    """At most `limit` characters, the last of which is an ellipsis if some were cut."""
    return words if len(words) <= limit else words[: limit - 1] + "…"


@dataclass
class _Scale:
    """From values to pixels."""

    values: Sequence[float]
    start: float
    end: float
    axis: Axis
    low: float = field(init=False)
    high: float = field(init=False)

    def __post_init__(self) -> None:
        low, high = self._map(min(self.values)), self._map(max(self.values))
        margin = 0.05 * (high - low) or (0.5 if self.axis.log or self.axis.whole else 0.02 * abs(low) or 0.05)
        self.low, self.high = low - margin, high + margin

    def __call__(self, value: float) -> float:
        return self.start + (self._map(value) - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[tuple[float, str]]:
        if self.axis.ticks is not None:
            places: Sequence[float] = self.axis.ticks
        elif self.axis.log:
            places = _log_ticks(self.low, self.high)
        else:
            places = _even_ticks(self.low, self.high, 1.0 if self.axis.whole else 0.0)
        write: Callable[[float], str] = _percent if self.axis.percent else _plain
        return [(value, write(value)) for value in places if self.low <= self._map(value) <= self.high]

    def _map(self, value: float) -> float:
        # An error bar may reach below zero, where a logarithmic axis ends.
        return math.log10(max(value, 1e-300)) if self.axis.log else value


def _even_ticks(low: float, high: float, smallest: float) -> list[float]:
    """About five multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / 5
    power = 10 ** math.floor(math.log10(rough))
    step = max(next(m * power for m in (1, 2, 5, 10) if m * power >= rough), smallest)
    return [round(i * step, 12) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(low), math.ceil(high) + 1)
    every = max(1, round((high - low) / 6))
    factors = (1,) if high - low > 2 else (1, 2, 5)
    return [factor * 10.0**decade for decade in decades if decade % every == 0 for factor in factors]


def _percent(value: float) -> str:
    return f"{100 * value:g} %"


def _plain(value: float) -> str:
    if value and (abs(value) < 1e-3 or abs(value) >= 1e5):
        return f"{value:.3g}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")
    return f"{value:g}"


def _axes(across: _Scale, up: _Scale, x: Axis, y: Axis) -> str:
    floor, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [_line(LEFT, floor, right, floor, opacity=0.5)]
    for tick, words in up.ticks():
        parts.append(_line(LEFT, up(tick), right, up(tick), opacity=0.13))
        parts.append(_text(LEFT - 6, up(tick) + 4, words, "end", size=11))
    for tick, words in across.ticks():
        parts.append(_line(across(tick), floor, across(tick), floor + 4, opacity=0.5))
        parts.append(_text(across(tick), floor + 17, words, "middle", size=11))
    parts.append(_text((LEFT + right) / 2, HEIGHT - 8, x.label, "middle", opacity=0.7))
    if y.label:
        parts.append(_text(right, 17, y.label, "end", size=11, opacity=0.7))
    return "".join(parts)


def _text(
    x: float,
    y: float,
    words: str,
    anchor: str = "start",
    size: int = FONT,
    weight: str = "400",
    fill: str = "currentColor",
    opacity: float = 1.0,
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" '
        f'fill="{fill}" opacity="{opacity:g}">{escape(words)}</text>'
    )


def _line(
    x1: float, y1: float, x2: float, y2: float, stroke: str = "currentColor", width: float = 1, opacity: float = 1.0
) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}" '
        f'stroke-width="{width:g}" opacity="{opacity:g}"/>'
    )

"""Figures and lists in words."""

import re
from collections.abc import Sequence

from cv_lab.study.trials import is_loss


def is_share(metric: str) -> bool:
    """Whether a metric lies in 0..1 and is shown in per cent; all but losses are."""
    return not is_loss(metric)


def figure(metric: str, value: float | None, decimals: int = 2) -> str:
    """A metric's value: "71.30 %", or "1.234" of a loss; "" for none."""
    if value is None:
        return ""
    return f"{100 * value:.{decimals}f} %" if is_share(metric) else f"{value:.4g}"


def gap(metric: str, value: float) -> str:
    """A difference of two values: "1.20 points", or "0.123" of a loss."""
    return f"{100 * value:.2f} points" if is_share(metric) else f"{value:.3g}"


def spread(metric: str, value: float | None) -> str:
    """A deviation behind a value: " ± 0.41", or nothing for none."""
    if value is None:
        return ""
    return f" ± {100 * value:.2f}" if is_share(metric) else f" ± {value:.2g}"


def seconds(value: float | None) -> str:
    """A duration in seconds; "" for none."""
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def whole(value: float | None) -> str:
    """A number without decimals; "" for none."""
    return "" if value is None else f"{value:,.0f}"


def short(value: float | None) -> str:
    """A count with its thousands, millions or billions: "619.8 k"; "" for none."""
    if value is None:
        return ""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.4g} {unit}"
    return f"{value:g}"


def listing(items: Sequence[str], limit: int = 6) -> str:
    """ "a, b and c"; beyond `limit`, "a, b and 7 more"."""
    items = [*items[:limit], f"{len(items) - limit} more"] if len(items) > limit + 1 else list(items)
    between = "; " if any("," in item for item in items) else ", "
    return items[0] if len(items) == 1 else f"{between.join(items[:-1])} and {items[-1]}"


def count(n: int, noun: str) -> str:
    """ "1 trial", "2 trials"."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def every(n: int, noun: str) -> str:
    """ "both trials", "all 9 trials"."""
    return f"both {noun}s" if n == 2 else f"all {n} {noun}s"


def slug(name: str) -> str:
    """A name as part of a file name and an anchor."""
    return "".join(c if c.isalnum() and c.isascii() else "-" for c in name)[:40] or "-"


def clean(words: str) -> str:
    """Without what neither UTF-8 nor XML can hold: names of folders may hold any bytes."""
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", "�", words).encode("utf-8", "replace").decode()

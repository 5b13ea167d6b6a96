"""Figures and lists in words."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Unit:
    """How a metric's values are written, everywhere: in tables, sentences and charts.

    Attributes:
        unit: "share", a number in 0..1 that is shown in per cent; "plain", the number alone; any other stands behind
            the number.
        mode: "max" if larger is better, else "min".
    """

    unit: str = "plain"
    mode: str = "max"

    @property
    def is_share(self) -> bool:
        return self.unit == "share"

    @property
    def suffix(self) -> str:
        """What stands behind a number: " %", "" or such as " px"."""
        return {"share": " %", "plain": ""}.get(self.unit, f" {self.unit}")

    def value(self, value: float | None) -> str:
        """A value: "71.30 %", "1.234", "7.25 px"; "" for none."""
        return "" if value is None else self._number(value, ".2f", ".4g") + self.suffix

    def gap(self, difference: float) -> str:
        """A difference of two values: "1.20 points" of a share, "0.123", "0.5 px"."""
        if self.is_share and 0 < abs(difference) < 0.00005:
            return "less than 0.01 points"
        return self._number(difference, ".2f", ".3g") + (" points" if self.is_share else self.suffix)

    def spread(self, deviation: float | None) -> str:
        """A deviation behind a value: " ± 0.41", or nothing for none."""
        return "" if deviation is None else " ± " + self._number(deviation, ".2f", ".2g")

    def interval(self, ends: tuple[float, float] | None) -> str:
        """An interval: "[57.7, 62.0]", in per cent of a share; "" for none. Narrow ones have more digits."""
        if ends is None:
            return ""
        share = ".1f" if ends[1] - ends[0] >= 0.001 else ".3g"
        return "[" + ", ".join(self._number(end, share, ".3g") for end in ends) + "]"

    def _number(self, value: float, share: str, other: str) -> str:
        return format(100 * value, share) if self.is_share else format(value, other)


def p_value(p: float) -> str:
    """ "p = 0.012", "p < 0.001"."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


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
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", "�", words).encode("utf-8", "replace").decode()

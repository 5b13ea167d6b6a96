"""What the numbers of a metric are, and which of them are better."""

from typing import NamedTuple


class Unit(NamedTuple):
    """Unit and direction of a metric.

    Attributes:
        unit: "share" for a number in 0..1, which is shown in per cent; "plain" for a number without a unit; any other
            word, such as "px" or "s", is shown behind the number.
        mode: "max" if larger values are better, "min" if smaller ones are.
    """

    unit: str
    mode: str


SHARE = Unit("share", "max")
LOSS = Unit("plain", "min")

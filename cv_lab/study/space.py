"""What a search varies, from Hydra's syntax of sweeps to Optuna's distributions and back to overrides."""

from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

DIGITS = 4  # of a number drawn from an interval, so that folders and tables stay readable


@dataclass(frozen=True)
class Dimension:
    """One override that a search varies.

    Attributes:
        distribution: of its values.
    """

    distribution: BaseDistribution

    def text(self, value: Any) -> str:
        """The value as it stands in an override, rounded where it is drawn from an interval."""
        match self.distribution:
            case FloatDistribution(step=None, low=low, high=high):
                rounded = f"{value:.{DIGITS}g}"
                return rounded if low <= float(rounded) <= high else repr(value)
            case FloatDistribution():
                return f"{value:.10g}"  # without what is lost in the last bits of sums of steps
        return str(value)

    def value(self, text: str) -> Any:
        """The value that stands in an override.

        Raises:
            ValueError: if it is none of this dimension's.
        """
        match self.distribution:
            case CategoricalDistribution(choices=choices):
                if text not in choices:
                    raise ValueError(f"{text} is none of {choices}")
                return text
            case FloatDistribution():
                value: Any = float(text)
            case _:
                value = int(text)
        if not self.distribution._contains(self.distribution.to_internal_repr(value)):
            raise ValueError(f"{text} is out of range")
        return value


def dimension(override: Override, config_loader: Any) -> Dimension:
    """The dimension of an override that is a sweep.

    ``choice(a,b)``, ``a,b`` and ``glob(*)`` are categories; ``range(1,10,2)`` is a grid of numbers, its end left out as
    in Python; ``interval(0,1)`` are all numbers between, whole ones with ``tag(int, ...)`` or ``int(...)``, and on a
    logarithmic scale with ``tag(log, ...)``.

    Raises:
        ValueError: if Optuna knows no such distribution.
    """
    sweep = override.value()
    tags: set[str] = getattr(sweep, "tags", set())
    if unknown := set(tags) - {"log", "int"}:
        raise ValueError(f"{override.input_line}: there is no tag {', '.join(sorted(unknown))}: give log or int")
    log = "log" in tags
    if isinstance(sweep, IntervalSweep):
        low, high = sweep.start, sweep.end
        assert low is not None
        assert high is not None
        whole = "int" in tags or (isinstance(low, int) and isinstance(high, int))
        if whole:
            return Dimension(IntDistribution(int(low), int(high), log=log))
        return Dimension(FloatDistribution(low, high, log=log))
    if isinstance(sweep, RangeSweep):
        values: list[Any] = list(sweep.range())
        if not values:
            raise ValueError(f"{override.input_line} is empty")
        step, low, high = abs(sweep.step), min(values), max(values)
        if log and step != 1:
            raise ValueError(f"{override.input_line}: steps of {step} are not logarithmic: give an interval or choices")
        if all(isinstance(value, int) for value in values):
            return Dimension(IntDistribution(low, high, log=log, step=int(step)))
        return Dimension(FloatDistribution(float(low), float(high), step=float(step)))
    if log:
        raise ValueError(f"{override.input_line}: choices have no logarithm: give an interval or a range")
    return Dimension(CategoricalDistribution(list(dict.fromkeys(override.sweep_string_iterator()))))

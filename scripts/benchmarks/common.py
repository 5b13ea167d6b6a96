"""What the benchmarks share: both sides measured by turns in one run, so that a busy machine slows both."""

import statistics
from collections.abc import Callable

import torch

from cv_lab.trial.hardware import device_name


def interleaved(sides: dict[str, Callable[[], float]], rounds: int = 5) -> dict[str, float]:
    """Call each side once a round, after a round that does not count; the median of what each returns."""
    seen: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            value = side()
            if number:
                seen[name].append(value)
    return {name: statistics.median(values) for name, values in seen.items()}


def print_machine() -> None:
    """Name the machine that the figures below come from."""
    print(f"{device_name(torch.device('cpu'))}, torch {torch.__version__}")

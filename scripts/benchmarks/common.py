"""What the benchmarks share: both sides measured by turns in one run, so that a busy machine slows both."""

import os
import statistics
from collections.abc import Callable

import torch
from pytorch_lightning import Trainer

from cv_lab.trial.hardware import device_name

TINY = bool(
    os.environ.get("BENCHMARK_TINY")
)  # sizes and a single round that say nothing of speed, to see that all runs


def interleaved(sides: dict[str, Callable[[], float]], rounds: int = 5) -> dict[str, float]:
    """Call each side once a round, after a round that does not count; the median of what each returns.

    The variable BENCHMARK_ROUNDS of the environment replaces `rounds`.
    """
    rounds = int(os.environ.get("BENCHMARK_ROUNDS") or rounds)
    seen: dict[str, list[float]] = {name: [] for name in sides}
    for number in [1] if TINY else range(rounds + 1):
        for name, side in sides.items():
            value = side()
            if number:
                seen[name].append(value)
    return {name: statistics.median(values) for name, values in seen.items()}


def trainer_in_training() -> Trainer:
    """A trainer as the data modules' hooks find it in a training on the CPU."""
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False)
    trainer.training = True
    return trainer


def print_machine() -> None:
    """Name the machine that the figures below come from."""
    print(f"{device_name(torch.device('cpu'))}, torch {torch.__version__}")

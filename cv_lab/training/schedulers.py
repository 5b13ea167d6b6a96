"""Learning-rate schedules over all optimizer steps of a trial. Each returns a scheduler to be stepped once a step."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    SequentialLR,
)


def cosine(optimizer: Optimizer, total_steps: int) -> LRScheduler:
    """From the optimizer's learning rate to 0 along half a cosine (Loshchilov & Hutter, 2017, without restarts)."""
    return CosineAnnealingLR(optimizer, T_max=total_steps)


def one_cycle(
    optimizer: Optimizer, total_steps: int, max_lr: float, pct_start: float = 0.3, anneal: str = "cos"
) -> LRScheduler:
    """Up to `max_lr` during `pct_start` of the steps, then down to almost 0 (Smith & Topin, 2018).

    The momentum stays as the optimizer has it: cycling it as well is torch's default, but not what most recipes do.
    """
    # Groups that an optimizer holds at another rate (a backbone below its head) keep their ratio to it.
    highest = max(group["lr"] for group in optimizer.param_groups) or 1.0  # a rate of 0 stays 0
    return OneCycleLR(
        optimizer,
        max_lr=[max_lr * group["lr"] / highest for group in optimizer.param_groups],
        total_steps=total_steps + 1,  # the schedule is stepped once more, after the last step
        pct_start=pct_start,
        anneal_strategy=anneal,  # type: ignore[arg-type]
        cycle_momentum=False,
    )


def warmup_cosine(optimizer: Optimizer, total_steps: int, warmup: float = 0.05) -> LRScheduler:
    """Linearly up during the fraction `warmup` of the steps, then :func:`cosine` down to 0."""
    steps = max(1, round(warmup * total_steps))
    rise = LinearLR(optimizer, start_factor=1 / (steps + 1), total_iters=steps)
    fall = CosineAnnealingLR(optimizer, T_max=max(1, total_steps - steps))
    return SequentialLR(optimizer, [rise, fall], milestones=[steps])


def step(
    optimizer: Optimizer, total_steps: int, milestones: tuple[float, ...] = (0.5, 0.75), gamma: float = 0.1
) -> LRScheduler:
    """Multiply the learning rate by `gamma` at each of `milestones`, given as fractions of all steps."""
    return MultiStepLR(optimizer, [round(share * total_steps) for share in milestones], gamma=gamma)


def wsd(
    optimizer: Optimizer, total_steps: int, warmup: int = 0, cooldown: float = 0.2, shape: str = "1-sqrt"
) -> LRScheduler:
    """Linearly up during `warmup` steps, constant, and down to 0 during the last steps (Haegele et al., 2024).

    Until its cooldown begins, the rate does not depend on the number of all steps. Trials of different length share
    their beginnings up to there.

    Args:
        optimizer: has the constant rate.
        total_steps: of the trial.
        warmup: number of steps.
        cooldown: fraction of all steps.
        shape: "1-sqrt", with 1 minus the square root of the part of the cooldown that is over as the factor, or
            "linear".

    Raises:
        ValueError: if a value is out of range.
    """
    if warmup < 0:
        raise ValueError(f"scheduler.warmup={warmup} must be a number of steps, at least 0")
    if not 0 <= cooldown <= 1:
        raise ValueError(f"scheduler.cooldown={cooldown} must be a fraction of all steps, from 0 to 1")
    if shape not in ("1-sqrt", "linear"):
        raise ValueError(f"scheduler.shape={shape} is not known: give 1-sqrt or linear")
    length = round(cooldown * total_steps)
    power = 0.5 if shape == "1-sqrt" else 1.0

    def factor(step: int) -> float:
        # The first step of the cooldown has the full rate, so that a checkpoint from before holds for longer trials.
        over = max(0, step - (total_steps - length))
        return min(1.0, (step + 1) / (warmup + 1)) * (1 - math.pow(over / length, power) if over else 1.0)

    return LambdaLR(optimizer, factor)

"""Learning-rate schedules over all optimizer steps of a trial. Each returns a scheduler to be stepped once a step."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, MultiStepLR, OneCycleLR, SequentialLR


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

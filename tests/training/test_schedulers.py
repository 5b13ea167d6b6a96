"""Schedules over a whole trial."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch.optim.lr_scheduler import LRScheduler

from cv_lab.training import schedulers


def rates(
    schedule: Callable[..., LRScheduler], steps: int = 100, groups: tuple[float, ...] = (1.0,)
) -> list[list[float]]:
    """The learning rate of each group in each step."""
    parameters = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in groups]
    optimizer = torch.optim.SGD(parameters, lr=1.0)
    scheduler = schedule(optimizer, total_steps=steps)
    seen = []
    for _ in range(steps):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step() if len(seen) < steps else None
    return seen


def test_cosine_falls_from_the_rate_to_almost_zero() -> None:
    seen = [rate for (rate,) in rates(schedulers.cosine)]
    assert seen[0] == 1.0
    assert seen[50] == pytest.approx(0.5)
    assert 0 < seen[-1] < 0.001


def test_one_cycle_peaks_where_it_is_told_and_keeps_ratios() -> None:
    seen = rates(partial(schedulers.one_cycle, max_lr=0.4, pct_start=0.25), groups=(1.0, 0.1))
    head = [pair[0] for pair in seen]
    assert max(head) == pytest.approx(0.4, rel=1e-3)
    assert head.index(max(head)) == pytest.approx(25, abs=1)
    assert head[-1] < 0.001
    assert all(low == pytest.approx(high / 10) for high, low in seen)


def test_warmup_rises_then_cosine_falls() -> None:
    seen = [rate for (rate,) in rates(partial(schedulers.warmup_cosine, warmup=0.1))]
    assert seen[0] < 0.2
    assert seen == [*sorted(seen[:11]), *sorted(seen[11:], reverse=True)]
    assert max(seen) == pytest.approx(1.0)


def test_step_divides_at_its_milestones() -> None:
    seen = [rate for (rate,) in rates(schedulers.step)]
    assert [seen[0], seen[49], seen[50], seen[75]] == pytest.approx([1.0, 1.0, 0.1, 0.01])


def test_a_cycle_of_rate_zero_stays_at_zero() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.0)
    schedule = schedulers.one_cycle(optimizer, total_steps=4, max_lr=0.0)
    for _ in range(4):
        optimizer.step()
        schedule.step()
        assert optimizer.param_groups[0]["lr"] == 0


def test_wsd_rises_stays_and_falls() -> None:
    seen = [rate for (rate,) in rates(partial(schedulers.wsd, warmup=3, cooldown=0.2))]
    assert seen[:4] == [0.25, 0.5, 0.75, 1.0]
    assert set(seen[3:81]) == {1.0}  # the cooldown's first step has the full rate
    assert seen[85] == pytest.approx(0.5)  # a quarter of the cooldown is over: 1 - sqrt(1/4)
    assert seen[99] == pytest.approx(1 - (19 / 20) ** 0.5)
    seen = [rate for (rate,) in rates(partial(schedulers.wsd, cooldown=0.2, shape="linear"))]
    assert seen[90] == pytest.approx(0.5)


def test_wsd_does_not_know_its_length_before_the_cooldown() -> None:
    short, long = (rates(partial(schedulers.wsd, warmup=10), steps, (0.3, 0.07)) for steps in (50, 100))
    assert short[:41] == long[:41]
    assert short[41] != long[41]


@pytest.mark.parametrize("options", [{"warmup": -1}, {"cooldown": 1.5}, {"shape": "cosine"}])
def test_wsd_refuses_what_it_cannot_do(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"scheduler.{next(iter(options))}="):
        rates(partial(schedulers.wsd, **options))

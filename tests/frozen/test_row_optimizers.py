"""Optimizers by row compute what torch's do."""

from functools import partial

import pytest
import torch
from torch.optim import SGD, Adam, AdamW, NAdam, Optimizer, RMSprop

from cv_lab.frozen.row_optimizers import row_kind

KINDS = {
    "sgd": [partial(SGD, momentum=0.9), SGD, partial(SGD, momentum=0.8, nesterov=True, weight_decay=1e-2)],
    "adam": [Adam, partial(Adam, weight_decay=1e-2, betas=(0.8, 0.99)), partial(AdamW, weight_decay=0.1, eps=1e-6)],
    "rmsprop": [RMSprop, partial(RMSprop, alpha=0.9, weight_decay=1e-2), partial(RMSprop, momentum=0.9)],
}


@pytest.mark.parametrize("factories", KINDS.values(), ids=KINDS)
def test_rows_are_updated_as_by_torch(factories: list[partial[Optimizer]]) -> None:
    torch.manual_seed(0)
    start, target, curve = torch.randn(3, 40, dtype=torch.float64)
    curve = curve.abs()
    lrs = [0.1, 0.01, 0.001]
    single = [torch.nn.Parameter(start.clone()) for _ in factories]
    optimizers = [make([p], lr=lr) for make, p, lr in zip(factories, single, lrs, strict=True)]
    rows = start.repeat(3, 1)
    kind = row_kind(optimizers[0])
    assert kind is not None
    together = kind([optimizer.param_groups[0] for optimizer in optimizers], rows)
    for _ in range(50):
        for parameter, optimizer in zip(single, optimizers, strict=True):
            optimizer.zero_grad()
            ((parameter - target) ** 2 * curve).sum().backward()
            optimizer.step()
        together.step(rows, 2 * (rows - target) * curve, rows.new_tensor(lrs)[:, None])
    torch.testing.assert_close(rows, torch.stack([p.detach() for p in single]), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "make", [NAdam, partial(Adam, amsgrad=True), partial(SGD, maximize=True), partial(RMSprop, centered=True)]
)
def test_what_has_no_rows_is_known(make: partial[Optimizer]) -> None:
    assert row_kind(make([torch.nn.Parameter(torch.zeros(1))], lr=0.1)) is None

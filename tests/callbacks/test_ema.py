"""The average equals Lightning's."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

from cv_lab.callbacks.ema import _Average


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))  # with a buffer of whole numbers


@pytest.mark.parametrize("use_buffers", [True, False])
def test_the_average_is_torchs_to_the_bit_also_when_continued(use_buffers: bool) -> None:
    model = network()
    options = {"avg_fn": get_ema_avg_fn(0.9), "use_buffers": use_buffers}
    own, torchs = _Average(model, **options), AveragedModel(model, **options)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for step in range(8):
        if step == 4:
            state = own.state_dict()
            own = _Average(network(), **options)
            own.load_state_dict(state)
        model(torch.randn(5, 4)).square().sum().backward()
        optimizer.step()
        own.update_parameters(model)
        torchs.update_parameters(model)
        left, right = own.state_dict(), torchs.state_dict()
        assert list(left) == list(right)
        assert all(torch.equal(left[name], right[name]) for name in right), step

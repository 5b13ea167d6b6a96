"""The pretended device computes what the CPU does, refuses what CUDA refuses, and notes what CUDA waits for."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from tests.pretended_device import pretended_device


def test_training_gives_the_cpus_numbers_without_a_wait() -> None:
    def train(device: str) -> list[Tensor]:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
        images, labels = torch.randn(4, 3, 6, 6), torch.tensor([0, 1, 1, 0])
        network(images)  # makes the lazy layer
        network, images, labels = network.to(device), images.to(device), labels.to(device)
        optimizer = torch.optim.Adam(network.parameters(), 0.1)
        before = len(waits)
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(network(images), labels).backward()
            optimizer.step()
        assert len(waits) == before
        return [value.to("cpu") for value in network.state_dict().values()]

    with pretended_device() as waits:
        for own, cpus in zip(train("gpu"), train("cpu"), strict=True):
            assert torch.equal(own, cpus)


@pytest.mark.parametrize(
    "mixed",
    [
        lambda x: x + torch.ones(3),
        lambda x: torch.ones(3) * x,
        lambda x: torch.ones(5)[x.long()],
        lambda x: torch.stack([x, torch.ones(3)]),
        lambda x: torch.stack([x.sum(), torch.tensor(1.0)]),
        lambda x: x @ torch.ones(3),
        lambda x: x.gather(0, torch.zeros(3, dtype=torch.long)),
        lambda x: F.linear(x, torch.ones(2, 3)),
        lambda x: x.add_(torch.ones(3)),
        lambda x: torch.ones(3).add_(x),
        lambda x: x.numpy(),
        lambda x: torch.rand(3, device="gpu", generator=torch.Generator()),
    ],
)
def test_two_devices_in_one_operation_are_refused(mixed: Callable[[Tensor], Tensor]) -> None:
    with pretended_device(), pytest.raises((RuntimeError, TypeError)):
        mixed(torch.ones(3, device="gpu"))


def test_numbers_and_indices_of_the_cpu_are_taken() -> None:
    with pretended_device() as waits:
        x = torch.arange(3.0, device="gpu")
        assert x.is_cuda
        assert x.device == torch.device("gpu:0")
        total = x * torch.tensor(2.0) + torch.tensor(1.0) - 1
        total[0] = 5
        assert not waits
        assert x[torch.tensor([2, 0])].tolist() == [2, 0]
        assert [wait.operation for wait in waits] == ["index on the CPU", "tolist"]
        assert total.tolist() == [5, 2, 4]


BOXES = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2]])


@pytest.mark.parametrize(
    ("call", "operation"),
    [
        (lambda x: x.sum().item(), "item"),
        (lambda x: bool(x.sum() > 0), "item"),
        (lambda x: float(x[0]), "item"),
        (lambda x: x.tolist(), "tolist"),
        (lambda x: x[x > 1], "boolean mask as index"),
        (lambda x: x.__setitem__(x > 0, x[1:].clone()), "boolean mask as index"),
        (lambda x: x.nonzero(), "nonzero"),
        (lambda x: torch.where(x > 0), "nonzero"),
        (lambda x: x.masked_select(x > 1), "masked_select"),
        (lambda x: x.unique(), "unique"),
        (lambda x: x.long().bincount(), "bincount"),
        (lambda x: torch.repeat_interleave(x, x.long()), "repeat_interleave"),
        (lambda x: torch.equal(x, x), "equal"),
        (lambda x: torchvision.ops.nms(BOXES.to("gpu"), x[:2], 0.5), "nms"),
        (lambda x: x.to("cpu"), "copy from the device"),
        (lambda x: torch.empty(3).copy_(x), "copy from the device"),
        (lambda x: torch.tensor([1.0, 2], device="gpu"), "copy to the device"),
        (lambda x: x.new_tensor([1.0, 2]), "copy to the device"),
        (lambda x: torch.ones(3).to("gpu"), "copy to the device"),
        (lambda x: torch.ones(3).to("gpu", non_blocking=True), "copy to the device"),
        (lambda x: torch.ones(3).pin_memory().to("gpu"), "copy to the device"),
        (lambda x: x.copy_(torch.ones(3)), "copy to the device"),
    ],
)
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.inference_mode])
def test_what_cuda_waits_for_is_noted(call: Callable[[Tensor], object], operation: str, mode: type) -> None:
    with pretended_device() as waits, mode():
        call(torch.arange(3.0, device="gpu"))
        assert operation in [wait.operation for wait in waits]
        assert {wait.module for wait in waits} <= {__name__, "torchvision.ops.boxes"}


@pytest.mark.parametrize(
    "call",
    [
        lambda x: torch.where(x > 1, x, 0),
        lambda x: x.masked_fill(x > 1, 0),
        lambda x: x.__setitem__(x > 1, 0.0),
        lambda x: x[torch.zeros(2, dtype=torch.long, device="gpu")],
        lambda x: x.long().to(torch.float64).to("gpu"),
        lambda x: torch.ones(3).pin_memory().to("gpu", non_blocking=True),
        lambda x: x.to("cpu", non_blocking=True),
        lambda x: torch.full((3,), 2.0, device="gpu").add_(x).sort(),
        lambda x: torch.repeat_interleave(x, x.long(), output_size=3),
    ],
)
def test_what_cuda_does_not_wait_for_is_not(call: Callable[[Tensor], object]) -> None:
    with pretended_device() as waits:
        call(torch.arange(3.0, device="gpu"))
        assert not waits

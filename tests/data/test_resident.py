"""A split that lives on the trial's device gives the same batches as one in main memory."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cv_lab.data import base, in_memory
from cv_lab.data.base import SHARE
from cv_lab.data.in_memory import InMemoryImages, MappedRows, eval_loader, train_loader
from cv_lab.data.shapes import Shapes
from cv_lab.frozen.features import FeatureRows
from tests.pretended_device import DEVICE, PretendedTensor, pretended_device

COUNT = 12
PIXELS = torch.randint(0, 256, (COUNT, 6, 5, 3), dtype=torch.uint8).permute(0, 3, 1, 2)  # channels last
ROWS = torch.arange(COUNT).flip(0)


def images(pixels: Any = PIXELS, **more: Any) -> InMemoryImages:
    return InMemoryImages(pixels, torch.arange(COUNT) % 3, ("a", "b", "c"), **more)


def shapes(target: str, **options: Any) -> Shapes:
    data = Shapes(train_count=30, test_count=10, image_size=32, batch_size=5, target=target, **options)
    data.setup()
    return data


SETS = {
    "tensor": lambda: images(),
    "memory map": lambda: images(MappedRows(PIXELS, ROWS)),
    "masks": lambda: images(masks=PIXELS[:, 0].contiguous()),
    "objects": lambda: shapes("instances").train,
    "features": lambda: FeatureRows(images(MappedRows(PIXELS, ROWS)), torch.randn(COUNT, 4)),
}


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("device", [torch.device("cpu"), DEVICE])
def test_batches_are_the_same(name: str, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_memory, "MOVED_AT_ONCE", 5)
    here = SETS[name]()
    with pretended_device() as waits:
        there = here.to(device)
        waits.clear()
        for loaders in (
            [train_loader(dataset, 5, 1, 2, device) for dataset in (here, there)],
            [eval_loader(dataset, 5, device) for dataset in (here, there)],
        ):
            for one, other in zip(*loaders, strict=True):
                assert one.keys() == other.keys()
                for key, value in one.items():
                    moved = other[key]
                    if not isinstance(value, torch.Tensor):
                        assert moved == value  # names, and objects of one image
                        continue
                    if key in ("image", "label", "index", "mask"):
                        assert moved.device == device
                    # What is made of objects as they are asked for comes from main memory.
                    plain = moved.inner if isinstance(moved, PretendedTensor) else moved
                    assert torch.equal(plain, value)
                    assert plain.stride() == value.stride()
        assert not waits


def test_only_what_batches_are_taken_from_is_moved() -> None:
    mapped = MappedRows(PIXELS, ROWS)
    with pretended_device():
        assert images(mapped).nbytes == PIXELS.nbytes + COUNT * 8
        assert isinstance(images(mapped).to(DEVICE).images, PretendedTensor)
        features = FeatureRows(images(mapped), torch.randn(COUNT, 4))
        assert features.nbytes == COUNT * (4 * 4 + 8)
        moved = features.to(DEVICE)
        assert isinstance(moved, FeatureRows)
        assert isinstance(moved.features, PretendedTensor)
        assert moved.images is mapped


@pytest.mark.parametrize(
    ("resident", "share_taken", "lives_there"),
    [("auto", 0.99, True), ("auto", 1.01, False), (True, 1.01, True), (False, 0.01, False)],
)
def test_auto_looks_at_free_memory(
    resident: bool | str, share_taken: float, lives_there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = shapes("label", resident=resident)
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        strategy=SimpleNamespace(root_device=DEVICE), current_epoch=0, global_rank=0, world_size=1
    )
    assert data.train is not None
    free = data.train.nbytes / SHARE / share_taken
    monkeypatch.setattr(base, "free_memory", lambda device: free if device == DEVICE else 0)
    with pretended_device():
        dataset = data.train_dataloader().dataset
        assert (dataset is not data.train) == lives_there
        assert data.train_dataloader().dataset is dataset  # moved once


def test_on_a_cpu_nothing_is_moved_of_itself() -> None:
    data = shapes("mask")
    assert data.train_dataloader().dataset is data.train
    assert data.test_dataloader().dataset is data.test


def test_a_set_that_validates_and_tests_is_moved_once() -> None:
    data = shapes("label", resident=True, validation="test")
    assert data.val_dataloader().dataset is data.test_dataloader().dataset


def test_other_values_are_refused() -> None:
    with pytest.raises(ValueError, match=r"data.resident=gpu is not known: give true, false or auto"):
        Shapes(resident="gpu")

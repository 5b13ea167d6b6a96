from collections.abc import Iterable
from itertools import chain
from typing import Any

import pytest
import torch

from cv_lab.data.in_memory import EpochSampler, InMemoryImages, eval_loader, train_batch_size, train_loader


def numbered(count: int) -> InMemoryImages:
    """Images whose pixels are their number."""
    images = torch.arange(count).to(torch.uint8).view(-1, 1, 1, 1).expand(count, 3, 4, 4)
    return InMemoryImages(images, torch.arange(count) % 3, ("a", "b", "c"))


def test_batches_hold_each_image_once_with_its_label() -> None:
    batches = list(train_loader(numbered(20), batch_size=5, seed=0, epoch=0))
    index = torch.cat([batch["index"] for batch in batches])
    assert index.sort().values.tolist() == list(range(20))
    assert index.tolist() != list(range(20))
    for batch in batches:
        assert torch.equal(batch["image"][:, 0, 0, 0].long(), batch["index"])
        assert torch.equal(batch["label"], batch["index"] % 3)


def test_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return list(EpochSampler(50, seed, epoch))

    torch.manual_seed(1)
    first = order(1, 4)
    torch.manual_seed(2)
    assert order(1, 4) == first
    assert order(1, 5) != first
    assert order(2, 4) != first
    stepped = EpochSampler(50, seed=1)
    stepped.set_epoch(4)
    assert list(stepped) == first


def test_an_incomplete_batch_is_dropped_in_training_alone() -> None:
    assert sum(len(batch["label"]) for batch in train_loader(numbered(22), 5, 0, 0)) == 20
    assert sum(len(batch["label"]) for batch in eval_loader(numbered(22), 5)) == 22


@pytest.mark.parametrize(
    ("images", "batch_size", "processes", "expected"),
    [
        (204, 128, 1, 102),  # 76 would be left out
        (205, 128, 1, 102),
        (45_000, 128, 1, 128),  # 72 are left out, less than a tenth
        (26, 8, 1, 8),
        (19, 10, 1, 9),
        (3, 2, 1, 2),  # batch normalisation needs two images
        (204, 64, 2, 51),
    ],
)
def test_small_sets_are_divided_evenly(images: int, batch_size: int, processes: int, expected: int) -> None:
    assert train_batch_size(images, batch_size, processes) == expected
    if images >= batch_size:
        batches = seen(train_loader(numbered(images), batch_size, 0, 0, processes=processes))
        assert {len(batch) for batch in batches} == {expected}
        assert len(batches) == images // (expected * processes)


def seen(loader: Iterable[Any]) -> list[list[int]]:
    return [batch["index"].tolist() for batch in loader]


def test_processes_train_on_what_one_with_a_larger_batch_trains_on() -> None:
    for processes, size, batch_size in ((2, 41, 5), (3, 39, 4), (4, 16, 4)):
        alone = seen(train_loader(numbered(size), batch_size * processes, seed=1, epoch=2))
        parts = [
            seen(train_loader(numbered(size), batch_size, 1, 2, rank=rank, processes=processes))
            for rank in range(processes)
        ]
        assert [list(chain(*step)) for step in zip(*parts, strict=True)] == alone
        every = [index for part in parts for batch in part for index in batch]
        assert len(set(every)) == len(every) == size // (batch_size * processes) * batch_size * processes


@pytest.mark.parametrize("size", [1, 2, 5, 9, 10, 11, 41])
@pytest.mark.parametrize("processes", [1, 2, 3, 5])
def test_processes_evaluate_the_batches_of_one(size: int, processes: int) -> None:
    alone = seen(eval_loader(numbered(size), 5))
    parts = [seen(eval_loader(numbered(size), 5, rank=rank, processes=processes)) for rank in range(processes)]
    assert all(parts)  # each has a batch, if need be one of no images, so that none skips a hook
    assert [batch for part in parts for batch in part if batch] == alone
    assert list(chain(*alone)) == list(range(size))
    counts = [len([batch for batch in part if batch]) for part in parts]
    assert max(counts) - min(counts) <= 1


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(ValueError, match="at most batch_size=4"):
        train_loader(numbered(4), 5, 0, 0)
    with pytest.raises(ValueError, match=r"batch_size=3 in each of 2 processes.*at most batch_size=2"):
        train_loader(numbered(4), 3, 0, 0, processes=2)
    with pytest.raises(ValueError, match=r"trainer\.devices=4 or fewer"):
        train_loader(numbered(4), 1, 0, 0, processes=5)


def test_a_label_out_of_range_is_named() -> None:
    with pytest.raises(ValueError, match=r"1 of 3 labels.*image 2 has label 7.*3 classes"):
        InMemoryImages(torch.zeros(3, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 1, 7]), ("a", "b", "c"))


def test_a_balanced_order_draws_every_class_equally_often() -> None:
    labels = torch.tensor([0] * 900 + [1] * 90 + [2] * 10 + [4])  # no image of class 3
    dataset = InMemoryImages(torch.zeros(1001, 3, 1, 1, dtype=torch.uint8), labels, tuple("abcde"))
    drawn = torch.cat([batch["label"] for batch in train_loader(dataset, 77, 0, 0, sampler="balanced")])
    shares = drawn.bincount(minlength=5) / len(drawn)
    assert len(drawn) == 1001
    assert shares[3] == 0
    assert all(abs(shares[k] - 0.25) < 0.05 for k in (0, 1, 2, 4))
    one, again, other = (seen(train_loader(dataset, 77, 0, epoch, sampler="balanced")) for epoch in (0, 0, 1))
    assert one == again != other


def test_processes_share_one_balanced_order() -> None:
    dataset = InMemoryImages(torch.zeros(40, 3, 1, 1, dtype=torch.uint8), torch.tensor([0] * 36 + [1] * 4), ("a", "b"))
    alone = seen(train_loader(dataset, 10, seed=1, epoch=2, sampler="balanced"))
    parts = [seen(train_loader(dataset, 5, 1, 2, rank=r, processes=2, sampler="balanced")) for r in range(2)]
    assert [list(chain(*step)) for step in zip(*parts, strict=True)] == alone

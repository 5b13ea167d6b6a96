import pytest
import torch

from cv_lab.data.in_memory import EpochSampler, InMemoryImages, eval_loader, train_loader


def numbered(count: int) -> InMemoryImages:
    """Images whose pixels are their number."""
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(count, 3, 4, 4)
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


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(ValueError, match="at most batch_size=4"):
        train_loader(numbered(4), 5, 0, 0)


def test_a_label_out_of_range_is_named() -> None:
    with pytest.raises(ValueError, match=r"1 of 3 labels.*image 2 has label 7.*3 classes"):
        InMemoryImages(torch.zeros(3, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 1, 7]), ("a", "b", "c"))

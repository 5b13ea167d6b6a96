"""Fine-tuning and linear probing, below the command line."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from cv_lab.data.in_memory import InMemoryImages
from cv_lab.models.backbones import TimmNetwork
from cv_lab.tasks.finetuning import FineTuning
from cv_lab.tasks.linear_probing import LinearProbing, Standardise

PARTS = {
    "model": TimmNetwork("test_resnet"),
    "classes": ("a", "b", "c"),
    "loss": nn.CrossEntropyLoss(),
    "optimizer": partial(torch.optim.SGD, lr=0.1),
}


def test_learning_rates_fall_from_the_head_down() -> None:
    task = FineTuning(**PARTS, trained=2, lr_decay=0.5)
    groups = task.make_optimizer().param_groups
    assert [group["lr"] for group in groups] == [0.1, 0.05, 0.025]
    trained = {id(p) for group in groups for p in group["params"]}
    assert trained == {id(p) for p in task.parameters() if p.requires_grad}
    assert {id(p) for p in groups[1]["params"]} == {id(p) for p in task.model.backbone.layer4.parameters()}


def test_all_means_every_parameter() -> None:
    task = FineTuning(**PARTS, trained="all")
    assert all(p.requires_grad for p in task.parameters())
    trained = {id(p) for group in task.make_optimizer().param_groups for p in group["params"]}
    assert trained == {id(p) for p in task.parameters()}


def test_stages_thaw_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    task = FineTuning(**PARTS, trained=2, unfreeze_every=2)
    thawed = []
    for epoch in range(7):
        monkeypatch.setattr(FineTuning, "current_epoch", epoch)
        task.on_train_epoch_start()
        thawed.append(task.model.freezing.trained_stages)
    assert thawed == [0, 0, 1, 1, 2, 2, 2]
    assert task.model.why_not_cached() is not None


def test_standardised_features_have_mean_0_and_deviation_1() -> None:
    features = torch.randn(500, 3) * torch.tensor([1.0, 10.0, 0.0]) + torch.tensor([5.0, -3.0, 7.0])
    layer = Standardise(3)
    assert torch.equal(layer(features), features)
    layer.fit(features)
    std, mean = torch.std_mean(layer(features), dim=0, correction=0)
    assert torch.allclose(mean, torch.zeros(3), atol=1e-5)
    assert torch.allclose(std, torch.tensor([1.0, 1.0, 0.0]), atol=1e-5)


@pytest.mark.parametrize("mixed", [False, True])
def test_neighbours_vote_by_similarity(mixed: bool) -> None:
    task = LinearProbing(**PARTS, knn=3)
    task.bank = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.6, -0.8], [-1.0, 0.0]])
    task.bank_labels = torch.tensor([0, 1, 1, 2])
    # The one very near counts more than the two that are 53 degrees away.
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        assert task._neighbours_vote(torch.tensor([[5.0, 0.0], [-3.0, 0.1]])).tolist() == [0, 2]


@pytest.mark.parametrize("tested", ["test", "train"])
def test_images_are_no_neighbours_of_themselves(tested: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task = LinearProbing(**PARTS, knn=1)
    pixels = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    sets = {name: InMemoryImages(pixels, torch.tensor([0, 1]), ("a", "b")) for name in ("train", "test")}
    data = SimpleNamespace(train=sets["train"], test_sets=lambda: [sets[tested]])
    monkeypatch.setattr(LinearProbing, "trainer", SimpleNamespace(datamodule=data))
    monkeypatch.setattr(LinearProbing, "_train_features", lambda self, index: torch.eye(2)[index])
    task.on_test_start()
    assert (task.bank is None) == (tested == "train")

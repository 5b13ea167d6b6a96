"""Optimizers as the configs describe them: weight decay, and what has none."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from timm.optim import param_groups_weight_decay
from torch import nn
from torch.optim import Optimizer

from cv_lab.callbacks.diagnostics import remedies_in_use
from cv_lab.config import KEYS, plain
from cv_lab.files import read_json
from cv_lab.frozen.heads import train_heads
from cv_lab.frozen.shared_heads import new_optimizer
from cv_lab.study.identity import parameters
from cv_lab.tasks.base import Task
from cv_lab.training.losses import CrossEntropy
from cv_lab.training.optimizers import optimizer_factory
from cv_lab.trial.build import build_task
from tests.conftest import PLAIN, ROOT, TINY, composed

Train = Callable[..., Path]
OPTIMIZERS = sorted(path.stem for path in (ROOT / "conf/optimizer").glob("[!_]*.yaml"))
SPARED = ("optimizer.decay_norms=false", "weight_decay=0.1")


def build(*overrides: str) -> Task:
    return build_task(composed(*overrides), ("a", "b", "c"))


def decays(optimizer: Optimizer) -> dict[int, float]:
    """The weight decay of each parameter, by its identity."""
    found = [(id(p), group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]]
    assert len(found) == len(dict(found))  # each stands in one group
    return dict(found)


TASKS = {
    "classification": ["model=small_cnn"],
    "finetuning": ["task=finetuning", "model=timm", "model.name=test_resnet", "weights=none", "task.trained=2"],
    "probing": ["task=linear_probing", "model=timm", "model.name=test_vit", "weights=none"],
    "segmentation": ["task=semantic_segmentation", "model.width=4", "task.encoder_lr_ratio=0.1"],
    "instances": ["task=instance_segmentation", "model.backbone.width=8"],
}


@pytest.mark.parametrize("overrides", TASKS.values(), ids=TASKS)
def test_norms_and_biases_may_be_spared_in_every_task(overrides: list[str]) -> None:
    spared, all_decay = build(*overrides, *SPARED), build(*overrides, *SPARED[1:], "optimizer.decay_norms=true")
    found = decays(spared.make_optimizer())
    trained = {id(p) for p in spared.parameters() if p.requires_grad}
    assert trained == found.keys()
    timms = param_groups_weight_decay(spared, 0.1)
    expected = {id(p): group["weight_decay"] for group in timms for p in group["params"]}
    assert found == expected
    assert {0.0, 0.1} == set(found.values())
    assert set(decays(all_decay.make_optimizer()).values()) == {0.1}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_spares_norms(name: str) -> None:
    task = build(f"optimizer={name}", "model=small_resnet", "model.width=4", "lr=1e-2", *SPARED)
    optimizer = task.make_optimizer()
    assert set(decays(optimizer).values()) == {0.0, 0.1}
    before = {name: p.clone() for name, p in task.named_parameters()}
    for parameter in task.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for key, parameter in task.named_parameters():
        assert torch.equal(parameter, before[key]) == (parameter.ndim <= 1), key


def test_learning_rates_of_stages_hold_for_both_of_their_groups() -> None:
    task = build(*TASKS["finetuning"], *SPARED, "lr=0.1")
    groups = task.make_optimizer().param_groups
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [
        *((0.1, 0.1), (0.1, 0.0)),
        *((0.05, 0.1), (0.05, 0.0)),
        *((0.025, 0.1), (0.025, 0.0)),
    ]
    encoder = build(*TASKS["segmentation"], *SPARED, "lr=0.1").make_optimizer().param_groups
    assert [group["lr"] for group in encoder] == pytest.approx([0.1, 0.1, 0.01, 0.01])


def test_fine_tuning_spares_norms_unless_told_otherwise() -> None:
    assert composed("task=finetuning").optimizer.decay_norms is False
    assert composed("task=finetuning", "optimizer=sgd").optimizer.decay_norms is False
    assert composed("task=finetuning", "optimizer.decay_norms=true").optimizer.decay_norms is True
    for task in ("classification", "linear_probing", "semantic_segmentation", "instance_segmentation"):
        assert composed(f"task={task}").optimizer.decay_norms is True


def test_an_optimizer_without_the_option_is_left_as_it_is() -> None:
    make = optimizer_factory({"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.1, "weight_decay": 0.3})
    layer = nn.Linear(2, 2)
    (group,) = make([{"params": list(layer.parameters())}]).param_groups
    assert (group["weight_decay"], len(group["params"])) == (0.3, 2)


def test_adamw_has_torchs_weight_decay_unless_another_is_given() -> None:
    default = torch.optim.AdamW([nn.Parameter(torch.zeros(1))]).defaults["weight_decay"]
    for overrides, expected in (
        (["optimizer=adamw"], default),
        (["optimizer=adam"], 0.0),
        (["optimizer=sgd"], 0.0),
        (["optimizer=adamw", "weight_decay=0"], 0.0),
        (["optimizer=adamw", "weight_decay=0.3"], 0.3),
        (["optimizer=adam", "weight_decay=0.3"], 0.3),
        (["task=instance_segmentation"], 1e-4),  # which is adamw's there
        (["experiment=cifar100_fast", "optimizer=adamw", "optimizer.fallback_lr_scale=null"], 1e-2),
    ):
        found = composed(*overrides)
        assert found.weight_decay == found.optimizer.weight_decay == expected, overrides


def test_a_record_tells_the_weight_decay_in_effect(train: Train) -> None:
    small = (*TINY, *PLAIN, "model=small_cnn", "model.width=4")
    study = train("-m", "hydra/launcher=basic", *small, "optimizer=adam,adamw")
    recorded = {
        (parameters := read_json(path)["parameters"])["optimizer"]: parameters["weight_decay"]
        for path in study.glob("*/trial.json")
    }
    assert recorded == {"adam": 0.0, "adamw": 0.01}
    losses = {read_json(path)["metrics"]["val/loss"] for path in study.glob("*/result.json")}
    assert len(losses) == 2


def test_a_weight_decay_of_the_optimizer_alone_is_what_counts() -> None:
    found = composed("optimizer=adamw", "optimizer.weight_decay=0.3")
    recorded = parameters(found, KEYS, {"optimizer": "adamw"}, ["optimizer=adamw", "optimizer.weight_decay=0.3"])
    assert recorded["weight_decay"] == 0.3
    assert "weight decay" in remedies_in_use(found, {})
    assert "weight decay" not in remedies_in_use(composed("optimizer=adamw", "optimizer.weight_decay=0"), {})


def test_muon_turns_gradients_of_matrices_into_their_nearest_orthogonal_ones() -> None:
    """The direction is that of the exact polar factor, and the size that of a step of AdamW (Liu et al., 2025)."""

    def first_step(lr: float) -> list[torch.Tensor]:
        torch.manual_seed(0)
        layers = nn.Conv2d(8, 16, 3), nn.Linear(32, 48)
        before = [p.detach().clone() for layer in layers for p in layer.parameters()]
        optimizer = optimizer_factory(plain(composed("optimizer=muon", f"lr={lr}").optimizer))(
            [{"params": [p for layer in layers for p in layer.parameters()]}]
        )
        for group in optimizer.param_groups:
            for parameter, gradient in zip(group["params"], gradients, strict=True):
                parameter.grad = gradient
        optimizer.step()
        return [old - p.detach() for old, p in zip(before, optimizer.param_groups[0]["params"], strict=True)]

    torch.manual_seed(1)
    gradients = [torch.randn(shape) for shape in ((16, 8, 3, 3), (16,), (48, 32), (48,))]
    steps = first_step(0.01)
    for step, gradient in zip(steps, gradients, strict=True):
        if gradient.ndim == 1:
            torch.testing.assert_close(step, 1.9 * 0.01 * gradient.sign(), rtol=1e-3, atol=0)  # (1 + beta1) lr
            continue
        left, _, right = torch.linalg.svd(gradient.flatten(1), full_matrices=False)
        assert torch.cosine_similarity(step.flatten(), (left @ right).flatten(), 0) > 0.98
        assert step.square().mean().sqrt() == pytest.approx(0.2 * 0.01, rel=0.1)
    for once, twice in zip(steps, first_step(0.02), strict=True):
        torch.testing.assert_close(twice, 2 * once, rtol=1e-3, atol=1e-7)  # one knob for all


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
def test_heads_that_are_trained_together_spare_their_biases_too(name: str) -> None:
    """As torch does for a head by itself, beside one whose bias decays."""
    torch.manual_seed(0)
    features, labels = torch.randn(24, 5), torch.randint(0, 3, (24,))
    start = torch.randn(3, 6)
    batches = torch.arange(24).view(4, 6)
    options = {"lr": 0.05, "weight_decay": 0.5}
    points = [
        {"optimizer": {**plain(composed(f"optimizer={name}").optimizer), **options, "decay_norms": decay_norms}}
        for decay_norms in (False, True)
    ]
    rates = torch.full((9, 2), 0.05)
    optimizers = [new_optimizer(point) for point in points]
    *_, last = train_heads(start, features, labels, iter([batches] * 2), CrossEntropy(), optimizers, rates)
    for point, packed in zip(points, last, strict=True):
        layer = nn.Linear(5, 3)
        with torch.no_grad():
            layer.weight.copy_(start[:, :-1])
            layer.bias.copy_(start[:, -1])
        optimizer = optimizer_factory(point["optimizer"])([{"params": list(layer.parameters())}])
        for index in [*batches, *batches]:
            optimizer.zero_grad()
            nn.functional.cross_entropy(layer(features[index]), labels[index]).backward()
            optimizer.step()
        expected = torch.cat([layer.weight, layer.bias[:, None]], dim=1).detach()
        torch.testing.assert_close(packed[: 3 * 6].view(3, 6), expected, rtol=1e-4, atol=1e-5)

"""What a task says of itself, so that training, prediction and export need not know it."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from cv_lab.data.in_memory import InMemoryImages
from cv_lab.tasks.base import Task
from cv_lab.tasks.classification import Classification
from cv_lab.tasks.finetuning import FineTuning
from cv_lab.tasks.instance_segmentation import InstanceSegmentation
from cv_lab.tasks.linear_probing import LinearProbing
from cv_lab.tasks.multilabel import MultiLabelClassification
from cv_lab.tasks.semantic_segmentation import SemanticSegmentation
from cv_lab.training.losses import CrossEntropy
from cv_lab.training.units import LOSS, Unit
from cv_lab.trial.train import check_judged_class
from tests.conftest import PLAIN, TINY

Train = Callable[..., Path]
TASKS = (
    Classification,
    FineTuning,
    LinearProbing,
    SemanticSegmentation,
    InstanceSegmentation,
    MultiLabelClassification,
)
TRIALS = {
    "classification": ("monitor=val/cross_entropy",),
    "linear_probing": ("model=timm", "model.name=test_resnet", "model.image_size=32", "weights=none", "task.knn=3"),
    "semantic_segmentation": ("model.width=8",),
    "instance_segmentation": ("data.image_size=64", "model.backbone.width=8"),
}


@pytest.mark.parametrize("kind", TASKS)
def test_the_monitored_metric_has_a_unit_in_the_direction_of_the_task(kind: type[Task]) -> None:
    assert kind.units[kind.monitor.partition("/")[2]] == Unit("share", kind.mode)


@pytest.mark.parametrize("task", TRIALS)
def test_every_logged_metric_has_a_unit(train: Train, tmp_path: Path, task: str) -> None:
    (path,) = train(f"task={task}", *TINY, *TRIALS[task], *PLAIN, f"cache_dir={tmp_path}/cache").glob("*/result.json")
    result = json.loads(path.read_text())
    if task == "classification":
        assert (result["monitor"]["name"], result["monitor"]["mode"]) == ("val/cross_entropy", "min")
        assert result["monitor"]["best"] == result["metrics"]["val/cross_entropy"]
    assert set(result["units"]) == {name for name in result["metrics"] if "/" in name}
    for name, unit in result["units"].items():
        is_share = "loss" not in name and "cross_entropy" not in name and "dropped" not in name
        assert unit == ({"unit": "share", "mode": "max"} if is_share else {"unit": "plain", "mode": "min"})


class Distance(Classification):
    """A task with a metric of pixels."""

    monitor = "val/rmse"
    mode = "min"
    units: ClassVar = {"loss": LOSS, "rmse": Unit("px", "min")}


def small(kind: type[Task]) -> Task:
    def network(num_classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, num_classes))

    def sgd(groups: object) -> torch.optim.Optimizer:
        return torch.optim.SGD(groups, 0.1)  # type: ignore[arg-type]

    loss = None if kind is MultiLabelClassification else CrossEntropy()
    task = kind(network, ("a", "b"), loss, sgd)  # type: ignore[call-arg, arg-type]
    task.image_size = (8, 8)
    task.preprocessing = task.preprocessing.over((0.5,) * 3, (0.25,) * 3)
    return task.eval()


def test_units_of_metrics_by_name() -> None:
    task = small(Distance)
    assert task.unit_of("test/rmse") == task.unit_of("val/rmse/left") == Unit("px", "min")
    assert task.unit_of("val/loss") == LOSS
    assert task.unit_of("lr") is None
    assert task.unit_of("val/unknown") is None


@pytest.mark.parametrize(
    ("kind", "metric", "mode"),
    [
        (Classification, "val/f1", "max"),
        (Classification, "val/cross_entropy", "min"),
        (MultiLabelClassification, "val/ap/b", "max"),
        (MultiLabelClassification, "val/f1_macro", "max"),
    ],
)
def test_another_metric_may_choose_the_checkpoint(kind: type[Task], metric: str, mode: str) -> None:
    task = small(kind)
    task.judge_by(metric)
    assert (task.monitor, task.mode) == (metric, mode)


@pytest.mark.parametrize("metric", ["f1", "val/F1", "train/f1", "test/f1", "val/knn_accuracy", ""])
def test_metrics_that_no_validation_logs_are_refused(metric: str) -> None:
    with pytest.raises(ValueError, match="is no metric of the validation: give val/loss, val/cross_entropy, val/acc"):
        small(Classification).judge_by(metric)


class Silent(Classification):
    """A task that does not say what it predicts."""

    predict = Task.predict


class Sigmoid(Classification):
    """A task whose probabilities are not those of its base."""

    def predict(self, images: Tensor) -> Tensor:
        return self(images).sigmoid()


class Names(Classification):
    """A task that predicts no tensor."""

    def predict(self, images: Tensor) -> list[str]:  # type: ignore[override]
        return ["a"] * len(images)


def test_a_task_that_says_nothing_is_refused_by_name() -> None:
    with pytest.raises(NotImplementedError, match="Silent does not say what it predicts"):
        small(Silent).exported()


def test_objects_cannot_be_exported() -> None:
    with pytest.raises(ValueError, match="Names predicts list objects"):
        small(Names).exported()


def test_a_task_exports_its_own_probabilities() -> None:
    task = small(Sigmoid)
    exported = task.exported()
    program = torch.export.export(exported.module, (exported.example,))
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    found = program.module()(images)
    torch.testing.assert_close(found, task(task.preprocessing(images)).sigmoid())
    assert not torch.allclose(found.sum(1), torch.ones(2))


def test_a_class_that_is_not_validated_chooses_no_epoch() -> None:
    images = InMemoryImages(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.long), ("a", "b/c"))
    data: Any = SimpleNamespace(val=images, classes=images.classes)
    check_judged_class(data, "val/loss")
    check_judged_class(data, "val/iou/a")
    with pytest.raises(ValueError, match="no validation image has b/c"):
        check_judged_class(data, "val/iou/b/c")

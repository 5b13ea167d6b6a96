"""The published studies over frozen backbones: what they compose, and that their one command runs."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import TINY, composed

EXPERIMENTS = ["pets_epochs", "pets_learning_rate", "pets_label_smoothing", "probe_epochs", "probe_learning_rate"]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_study_starts_from_published_weights_without_augmentation(name: str) -> None:
    config = composed(f"experiment={name}", "model.name=resnet18")
    own = composed(f"experiment={name}", "model=timm", "weights=x.pt")
    assert config.model._target_.endswith("TorchvisionNetwork")
    assert own.model._target_.endswith("TimmNetwork")
    assert (config.weights, config.augmentation) == ("default", None)
    assert own.weights == "x.pt"
    assert config.data._target_.endswith("OxfordPet" if name.startswith("pets") else "Cifar10")


@pytest.mark.parametrize(("name", "trials"), [("pets_label_smoothing", 2), ("probe_epochs", 2)])
def test_its_command_runs(train: Callable[..., Path], tmp_path: Path, name: str, trials: int) -> None:
    small = ("model=timm", "model.name=test_resnet", "model.image_size=32", "weights=none", f"cache_dir={tmp_path}/c")
    sizes = [override for override in TINY if name != "probe_epochs" or not override.startswith("epochs")]
    plain = ("logger=none", "pictures=none", "hydra/launcher=basic")
    study = train(f"experiment={name}", "data=shapes", *sizes, *small, *plain)
    results = [json.loads(path.read_text()) for path in study.glob("*/result.json")]
    assert len(results) == trials
    assert sum(result["features_computed"] for result in results) == 1

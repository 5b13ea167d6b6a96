"""Whole trials on networks that are cut in unusual ways."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cv_lab.models.backbones import TimmNetwork, TorchvisionNetwork
from cv_lab.trial.build import load_task
from tests.conftest import PLAIN

FEW = ("data.train_count=60", "data.test_count=10", "data.image_size=32", "batch_size=8", "epochs=1")
NETWORKS = [
    pytest.param("task=linear_probing", TorchvisionNetwork("mnasnet0_5"), marks=pytest.mark.slow),
    ("task=linear_probing", TorchvisionNetwork("squeezenet1_1")),
    pytest.param("task=finetuning", TorchvisionNetwork("squeezenet1_1"), marks=pytest.mark.slow),
    pytest.param("task=linear_probing", TimmNetwork("repvit_m1"), marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("task", "make"), NETWORKS, ids=lambda value: getattr(value, "name", value))
def test_they_train_and_their_checkpoints_load(
    train: Callable[..., Path], tmp_path: Path, task: str, make: TorchvisionNetwork | TimmNetwork
) -> None:
    torch.manual_seed(0)
    network = make(num_classes=11)
    save_file(network.state_dict(), tmp_path / "net.safetensors")
    study = train(
        *(*FEW, *PLAIN, task, f"model={make.library}", f"model.name={make.name}", "model.image_size=64"),
        *(f"weights={tmp_path}/net.safetensors", f"cache_dir={tmp_path}/cache", "lr=1e-3"),
        *(["task.knn=5"] if "probing" in task else ["task.trained=1"]),
    )
    (result,) = study.glob("*/result.json")
    metrics = json.loads(result.read_text())["metrics"]
    (checkpoint,) = study.glob("*/checkpoints/best.ckpt")
    trained = load_task(checkpoint)
    with torch.inference_mode():
        assert trained(torch.randn(2, 3, 64, 64)).shape == (2, len(trained.classes))
    assert 0 <= metrics["test/accuracy"] <= 1
    if "probing" in task:  # the backbone is that of the file
        own = {key: value for key, value in trained.model.backbone.state_dict().items() if key in network.state_dict()}
        assert own
        assert all(torch.equal(value, network.state_dict()[key]) for key, value in own.items())

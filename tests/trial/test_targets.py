"""What a checkpoint may not do: run code of its choice, or load with bits that have changed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cv_lab.files import check_zip
from cv_lab.trial.build import load_task
from cv_lab.trial.targets import check_targets
from tests.conftest import PLAIN, TINY

Train = Callable[..., Path]
NETWORK = {"_target_": "cv_lab.models.small_cnn.SmallCNN", "num_classes": 3}


@pytest.mark.parametrize(
    "target",
    [
        "torch.hub.load",
        "torch.load",
        "torch.nn.modules.module.warnings.warn",
        "torch.nn.utils.rnn.torch.load",
        "torch.optim.optimizer.os.system",
        "cv_lab.models.weights.Path.touch",
        "cv_lab.models.weights.read_state_dict",
        "cv_lab.files.write_text",
        "cv_lab.trial.build.load_task",
        "timm.models.load_checkpoint",
        "timm.utils.model.os.remove",
        "torchvision.datasets.CIFAR10",
        "torchvision.io.write_file",
        "torchvision.models.os.remove",
        "segmentation_models_pytorch.from_pretrained",
        "builtins.exec",
        "subprocess.run",
        "pathlib.Path.touch",
        "hydra.utils.get_method",
        "tests.saboteur.DropoutNet",
        "os.system",
        3,
        None,
    ],
)
def test_other_code_than_networks_is_refused(target: Any) -> None:
    for config in ({"_target_": target}, {"loss": {"terms": [NETWORK, {"_target_": target}]}}):
        with pytest.raises(ValueError, match="the checkpoint would run"):
            check_targets({"model": NETWORK, "other": config})


@pytest.mark.parametrize(
    "target",
    [
        "cv_lab.models.backbones.TimmNetwork",
        "cv_lab.training.losses.WeightedSum",
        "cv_lab.training.schedulers.one_cycle",
        "cv_lab.tasks.classification.Classification",
        "torch.optim.AdamW",
        "torch.nn.CrossEntropyLoss",
        "torchvision.models.resnet18",
        "timm.create_model",
        "timm.models.resnet18",
        "segmentation_models_pytorch.Unet",
        "segmentation_models_pytorch.losses.DiceLoss",
    ],
)
def test_networks_losses_and_optimizers_are_allowed(target: str) -> None:
    check_targets({"model": {"_target_": target}})


def test_own_modules_are_allowed_when_they_are_trusted() -> None:
    check_targets({"_target_": "tests.saboteur.DropoutNet"}, trusted=["tests.saboteur"])
    with pytest.raises(ValueError, match="would run"):  # not what the module has imported
        check_targets({"_target_": "tests.saboteur.os.system"}, trusted=["tests.saboteur"])
    with pytest.raises(ValueError, match="would run"):
        check_targets({"_target_": "tests.saboteur.DropoutNet"}, trusted=["tests.sab"])


def test_a_checkpoint_with_other_code_or_changed_bits_is_refused(train: Train, tmp_path: Path) -> None:
    (path,) = train(*TINY, *PLAIN, "model=small_cnn", "model.width=4").glob("*/checkpoints/best.ckpt")
    load_task(path)
    with pytest.raises(ValueError, match="holds all weights of its network"):
        load_task(path, weights=path)
    saved = torch.load(path, weights_only=True)
    marker = tmp_path / "marker"
    saved["hyper_parameters"]["config"]["model"] = {"_target_": "pathlib.Path.touch", "self": str(marker)}
    torch.save(saved, tmp_path / "evil.ckpt")
    with pytest.raises(ValueError, match=r"would run pathlib\.Path\.touch"):
        load_task(tmp_path / "evil.ckpt")
    assert not marker.exists()
    content = bytearray(path.read_bytes())
    for place in range(2000, len(content), len(content) // 5):
        changed = bytearray(content)
        changed[place] ^= 0x10
        (tmp_path / "changed.ckpt").write_bytes(changed)
        with pytest.raises(ValueError, match=r"damaged|not a checkpoint"):
            load_task(tmp_path / "changed.ckpt")
    check_zip(path)
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="is not a checkpoint of a trial"):
        load_task(tmp_path / "other.ckpt")

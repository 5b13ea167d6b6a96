"""Every precision trains and tests every task with finite results, or is refused before training."""

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from cv_lab.data.augment import Batch
from cv_lab.models.backbones import TimmNetwork
from cv_lab.tasks.classification import Classification
from cv_lab.trial.build import load_task
from tests.conftest import PLAIN

pytestmark = pytest.mark.slow

Train = Callable[..., Path]
SMALL = ("data.train_count=24", "data.test_count=8", "data.image_size=32", "batch_size=8", "epochs=1", "logger=none")
FROZEN = ("model=timm", "model.name=test_vit", "model.image_size=32")
TASKS = {
    "classification": ("task=classification",),
    "mixed images": (
        *("task=classification", "augmentation=strong", "loss=weighted_cross_entropy"),
        *("callbacks=[default,progressive_resize]", "callbacks.progressive_resize.sizes=[16]"),
    ),
    "averaged": ("task=classification", "callbacks=[default,ema]"),
    "fine-tuning": ("task=finetuning", *FROZEN, "task.trained=all"),
    "head": ("task=finetuning", *FROZEN),
    "probe": ("task=linear_probing", *FROZEN, "task.knn=3"),
    "probe, images": ("task=linear_probing", *FROZEN, "task.knn=3", "cache=off"),
    "pixels": ("task=semantic_segmentation", "loss=dice_cross_entropy"),
    "pixels, lovasz": ("task=semantic_segmentation", "loss=lovasz"),
    "objects": ("task=instance_segmentation", "data.image_size=64"),
}
REFUSED = {("bf16-true", "averaged"): "give bf16-mixed", ("bf16-true", "objects"): "give bf16-mixed"}
# What differs from the result in float32 after so few steps: rounding.
TOLERANCE = {"64-true": 1e-2, "bf16-true": 0.1, "bf16-mixed": 0.1, "16-mixed": 0.1}


@pytest.fixture
def weights(tmp_path: Path) -> str:
    torch.manual_seed(0)
    path = tmp_path / "test_vit.safetensors"
    save_file(TimmNetwork("test_vit", image_size=32)(num_classes=11).state_dict(), path)
    return f"weights={path}"


def given(name: str, weights: str, tmp_path: Path) -> tuple[str, ...]:
    start = weights if "model=timm" in TASKS[name] else "weights=none"
    return (*SMALL, *TASKS[name], start, f"cache_dir={tmp_path}/cache")


@pytest.mark.parametrize("name", TASKS)
def test_a_task_trains_and_tests(
    train: Train, tmp_path: Path, weights: str, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    asked = given(name, weights, tmp_path)
    (plain,) = train(*asked).iterdir()
    expected = json.loads((plain / "result.json").read_text())["metrics"]
    for precision, tolerance in TOLERANCE.items():
        train_it = partial(train, *asked, f"precision={precision}", f"study={precision}")
        if (precision, name) in REFUSED:
            with pytest.raises(SystemExit):
                train_it()
            assert REFUSED[precision, name] in capsys.readouterr().out
            assert not list(tmp_path.glob(f"{precision}/*/metrics.csv"))
            continue
        (folder,) = (train_it().parent / precision).iterdir()
        metrics = json.loads((folder / "result.json").read_text())["metrics"]
        for key in ("train/loss", "val/loss", "test/loss"):
            assert math.isfinite(metrics[key]), precision
            assert metrics[key] == pytest.approx(expected[key], rel=tolerance), (precision, key)
        load_task(folder / "checkpoints/best.ckpt")


@pytest.mark.parametrize(("precision", "kind"), [("64-true", torch.float64), ("bf16-true", torch.bfloat16)])
@pytest.mark.parametrize("name", ["classification", "probe"])
def test_weights_and_images_are_of_that_precision_and_losses_of_a_full_one(
    train: Train,
    tmp_path: Path,
    weights: str,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    precision: str,
    kind: torch.dtype,
) -> None:
    seen: dict[str, Any] = {}

    def keep(self: Classification, outputs: Any, batch: Batch, batch_idx: int) -> None:
        seen["weights"] = {parameter.dtype for parameter in self.parameters()}
        seen["images"], seen["loss"] = batch["image"].dtype, outputs["loss"].dtype

    monkeypatch.setattr(Classification, "on_train_batch_end", keep)
    train(*given(name, weights, tmp_path), *PLAIN, f"precision={precision}")
    full = torch.float64 if kind is torch.float64 else torch.float32
    assert seen == {"weights": {kind}, "images": kind, "loss": full}


def test_features_of_one_precision_are_not_taken_for_those_of_another(
    train: Train, tmp_path: Path, weights: str
) -> None:
    kinds = {}
    for number, precision in enumerate(("32-true", "64-true", "bf16-true", "bf16-mixed")):
        before = set((tmp_path / "cache/features").glob("*.safetensors"))
        train(*given("probe", weights, tmp_path), *PLAIN, f"precision={precision}", f"study={number}")
        new = set((tmp_path / "cache/features").glob("*.safetensors")) - before
        assert len(new) == 2  # of the images to train on and to test
        kinds[precision] = {path.read_bytes()[:4096].split(b'"dtype": "')[1][:3] for path in new}
    assert kinds == {"32-true": {b"F32"}, "64-true": {b"F64"}, "bf16-true": {b"F32"}, "bf16-mixed": {b"F32"}}


def test_pure_float16_is_refused(train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train(*SMALL, *PLAIN, "precision=16-true")
    assert "give 16-mixed or bf16-true" in capsys.readouterr().out
    assert not list(tmp_path.glob("s/*/metrics.csv"))

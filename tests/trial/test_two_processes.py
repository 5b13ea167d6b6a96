"""Two processes that train one network count what one process counts, and train what one process trains."""

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from pytorch_lightning import Trainer
from safetensors.torch import load_file, save_file

from cv_lab.data.base import ImageData
from cv_lab.models.backbones import TimmNetwork
from cv_lab.trial.build import load_task
from tests.two_processes import run_in_two

pytestmark = pytest.mark.slow

Train = Callable[..., Path]
# 41 images to test and 15 to validate in batches of 10: neither divides by two, nor do the batches.
ODD = ("data.image_size=32", "data.train_count=56", "data.val_fraction=0.25", "data.test_count=41", "batch_size=10")
ONE = ("data.image_size=32", "data.train_count=40", "data.validation=test", "data.test_count=1", "batch_size=10")
PROBE = ("model=timm", "model.name=test_resnet", "model.image_size=32")
OBJECTS = ("task=instance_segmentation", "data.image_size=64", "batch_size=2", "data.train_count=12")
THAWING = ("task=finetuning", *PROBE, "task.trained=2", "task.unfreeze_every=1", "lr=0.01", "optimizer=sgd")
TRIALS: dict[str, tuple[str, ...]] = {
    "classification": (*ODD, "epochs=2", "logger=tensorboard"),
    "continued": (
        *ODD,
        "epochs=2",
        "+callbacks.stop._target_=tests.saboteur.InterruptOnce",
        "+callbacks.stop.epoch=1",
        "logger=tensorboard",
    ),
    "balanced": (*ODD, "epochs=1", "data.sampler=balanced"),
    "averaged": (*ODD, "epochs=2", "callbacks=[default,ema]", "callbacks.ema.decay=0.5"),
    "semantic segmentation": (*ODD, "epochs=2", "task=semantic_segmentation", "loss=dice"),
    "probe": (*ODD, "epochs=2", "task=linear_probing", *PROBE, "task.knn=5"),
    "probe, images": (*ODD, "epochs=2", "task=linear_probing", *PROBE, "task.knn=5", "cache=off"),
    "labels": (*ODD, "epochs=2", "task=multilabel"),
    "objects": (*OBJECTS, "data.test_count=5", "data.val_fraction=0.25", "epochs=1"),
    "thawing": (*ODD, "epochs=3", *THAWING, "batch_size=5", "augmentation=none"),
    "classification of one image": (*ONE, "epochs=1"),
    "segmentation of one image": (*ONE, "epochs=1", "task=semantic_segmentation"),
    "labels of one image": (*ONE, "epochs=1", "task=multilabel"),
    "probe of one image": (*ONE, "epochs=1", "task=linear_probing", *PROBE, "task.knn=5"),
    "objects of one image": (*ONE, *OBJECTS, "epochs=1"),
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of weights for test_resnet."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "test_resnet.safetensors"
    save_file(TimmNetwork("test_resnet")(num_classes=11).state_dict(), path)
    return f"weights={path}"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, weights: str) -> dict[str, Path]:
    """The folders of `TRIALS`, each run by two processes."""
    root = tmp_path_factory.mktemp("two")
    where = {name: root / "studies" / "s" / name.replace(",", "").replace(" ", "_") for name in TRIALS}
    always = (f"studies_dir={root}/studies", "study=s", f"cache_dir={root}/cache", "logger=none")
    trials = []
    for name, trial in TRIALS.items():
        given = [*always, *trial, *([weights] if "model=timm" in trial else []), f"hydra.run.dir={where[name]}"]
        trials += [[*given, f"+callbacks.stop.flag={root}/flag"]] * 2 if name == "continued" else [given]
    printed = run_in_two(trials, root).splitlines()
    assert [line for line in printed if line.startswith("exit")] == ["exit 130"] * 2  # of the one that is interrupted
    assert not [line for line in printed if line.startswith("error")]
    return where


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


@pytest.mark.parametrize("name", ["classification", "probe", "classification of one image"])
def test_each_test_image_is_kept_once(folders: dict[str, Path], name: str) -> None:
    arrays, told = np.load(folders[name] / "test.npz"), result(folders[name])
    assert arrays["index"].tolist() == list(range(told["images"]["test"]))
    assert (arrays["truth"] == arrays["prediction"]).mean() == pytest.approx(told["metrics"]["test/accuracy"])


@pytest.mark.parametrize("name", TRIALS)
def test_metrics_are_those_of_one_process(folders: dict[str, Path], name: str) -> None:
    folder = folders[name]
    config = OmegaConf.load(folder / ".hydra/config.yaml")
    task = load_task(folder / "checkpoints/best.ckpt")
    data: ImageData = instantiate(config.data, target=task.target)
    data.setup()
    data.preprocessing = task.preprocessing
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, enable_model_summary=False)
    alone: dict[str, float] = {}
    for evaluate in (trainer.validate, trainer.test):
        evaluate(task, data, verbose=False)
        alone |= {name: value.item() for name, value in trainer.callback_metrics.items()}
    told = result(folder)["metrics"]
    assert alone.keys() == {key for key in told if key.startswith(("val/", "test/"))}
    for key, value in alone.items():
        # In JSON what is not there, such as the IoU of a class that does not occur, is null.
        assert (math.nan if told[key] is None else told[key]) == pytest.approx(
            value, abs=1e-6, rel=1e-5, nan_ok=True
        ), key


@pytest.mark.parametrize(
    ("name", "images"), [("classification", 41), ("probe", 41), ("classification of one image", 1)]
)
def test_each_test_image_is_counted_once(folders: dict[str, Path], name: str, images: int) -> None:
    with open(folders[name] / "predictions/confusion_matrix.csv") as file:
        rows = list(csv.DictReader(file))
    assert sum(int(count) for row in rows for key, count in row.items() if key != "truth") == images


def test_gradual_unfreezing_trains_as_one_process_with_both_batches(
    folders: dict[str, Path], weights: str, train: Train, tmp_path: Path
) -> None:
    overrides = (*TRIALS["thawing"], weights, "batch_size=10", f"cache_dir={tmp_path}/cache", "logger=none")
    (alone,) = train(*overrides).iterdir()
    published = load_file(weights.removeprefix("weights="))
    together, single = (load_task(f / "checkpoints/last.ckpt").state_dict() for f in (folders["thawing"], alone))
    for name, value in together.items():
        torch.testing.assert_close(value, single[name], rtol=1e-4, atol=1e-5, msg=name)
    moved = {
        name.split(".")[0]
        for name, value in published.items()
        if not torch.equal(value, together.get(f"model.backbone.{name}", value))
    }
    assert moved == {"layer3", "layer4"}
    left, right = (result(folder)["metrics"] for folder in (folders["thawing"], alone))
    for key in ("train/loss", "train/accuracy"):
        assert left[key] == pytest.approx(right[key], rel=1e-4)


def test_both_continue_from_the_last_checkpoint(folders: dict[str, Path]) -> None:
    assert len(json.loads((folders["continued"] / "trial.json").read_text())["attempts"]) == 1
    assert list(folders["continued"].glob("events.out.tfevents.*"))
    assert result(folders["continued"])["metrics"] == result(folders["classification"])["metrics"]

"""``task=semantic_segmentation`` as a user runs it."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cv_lab.tasks.semantic_segmentation import SemanticSegmentation
from cv_lab.trial.build import build_task, load_task
from tests.conftest import TINY, composed

Train = Callable[..., Path]
SMALL = ("task=semantic_segmentation", *TINY, "model.width=8")


def build(*overrides: str) -> SemanticSegmentation:
    task = build_task(composed("task=semantic_segmentation", *overrides), ("background", "cat", "dog"))
    assert isinstance(task, SemanticSegmentation)
    return task


def test_a_trial_leaves_metrics_masks_and_pictures(train: Train) -> None:
    (folder,) = train(*SMALL, "loss=weighted_cross_entropy").iterdir()
    result = json.loads((folder / "result.json").read_text())
    metrics = result["metrics"]
    assert result["classes"][0] == "background"
    assert result["monitor"]["name"] == "val/mean_iou"
    names = ("pixel_accuracy", "mean_class_accuracy", "mean_iou", "mean_iou_foreground", "frequency_weighted_iou")
    assert all(0 <= metrics[f"{split}/{name}"] <= 1 for split in ("train", "val", "test") for name in names)
    ious = [metrics[f"test/iou/{name}"] for name in result["classes"]]
    assert np.mean([value for value in ious if value is not None]) == pytest.approx(metrics["test/mean_iou"])

    with open(folder / "class_shares.csv") as file:
        rows = list(csv.DictReader(file))
    assert sum(float(row["share"]) for row in rows) == pytest.approx(1)
    task = load_task(folder / "checkpoints/best.ckpt")
    assert task.loss.weight.tolist() == pytest.approx([float(row["weight"]) for row in rows])  # type: ignore[union-attr]

    predictions = folder / "predictions"
    samples = json.loads((predictions / "samples.json").read_text())
    mask = Image.open(predictions / "masks/0_predicted.png")
    truth = np.asarray(Image.open(predictions / "masks/0_truth.png"))
    assert (np.asarray(mask) == truth).mean() == pytest.approx(samples[0]["pixel_accuracy"])
    last = {"gallery_last_epoch"} if result["monitor"]["epoch"] < len(result["seconds"]["epochs"]) else set()
    assert {path.stem for path in predictions.glob("*.png")} == {"gallery", "worst", "iou", "confusion_matrix"} | last
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    assert {"predictions", "predictions_of_best", "iou", "confusion_matrix"} <= set(events.Tags()["images"])


def test_a_collapse_is_warned_of_and_kept_in_the_result(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    favour = ("loss=weighted_cross_entropy", "loss.class_weights={background: 1000}")
    (folder,) = train(*SMALL, *favour, "epochs=2", "batch_size=8", "lr=1e-2").iterdir()
    findings = json.loads((folder / "result.json").read_text())["findings"]
    (collapse,) = (finding for finding in findings if finding["kind"] == "collapse")
    assert "predicted as background" in collapse["message"]
    assert collapse["message"] in capsys.readouterr().out


@pytest.mark.parametrize("loss", ["focal", "dice", "tversky", "lovasz", "dice_cross_entropy"])
def test_every_loss_trains_and_loads(loss: str) -> None:
    task = build(f"loss={loss}", "model.width=4")
    logits = task(torch.randn(2, 3, 16, 16))
    task.loss(logits, torch.randint(0, 3, (2, 16, 16))).backward()
    assert all(p.grad is not None for p in task.model.parameters())


def test_the_encoder_learns_at_its_own_rate() -> None:
    task = build("task.encoder_lr_ratio=0.1", "lr=0.01")
    others, encoder = task.make_optimizer().param_groups
    assert (others["lr"], encoder["lr"]) == (0.01, pytest.approx(0.001))
    assert len(others["params"]) + len(encoder["params"]) == len(list(task.parameters()))


def test_a_frozen_encoder_keeps_weights_and_statistics() -> None:
    task = build("task.freeze_encoder=true", "lr=0.1").train()
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    optimizer = task.make_optimizer()
    task(torch.randn(2, 3, 16, 16)).sum().backward()
    optimizer.step()
    changed = {name for name, value in task.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert not any(name.startswith("stages.") for name in changed)


def test_an_experiment_and_the_command_line_override_what_the_task_chose(tmp_path: Path) -> None:
    task = composed("task=semantic_segmentation")
    experiment = composed("experiment=camvid")
    override = composed("experiment=camvid", "model=small_unet", "loss=dice", "lr=0.5")
    assert task.model._target_.endswith("SmallUNet")
    assert experiment.model._target_.endswith("SmpNetwork")
    assert override.model._target_.endswith("SmallUNet")
    assert override.loss._target_.endswith("TverskyLoss")
    assert override.lr == 0.5


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["data=cifar10"], "learns from a mask"),
        (["augmentation=strong", *TINY], "augmentation.mix=null"),
        (["loss=weighted_cross_entropy", "loss.class_weights=balanced", *TINY], "median_frequency"),
        (["loss=weighted_cross_entropy", "loss.class_weights={bird: 1}", *TINY], "bird"),
        (["model=smp", "model.architecture=UNet3", *TINY], "Unet"),
    ],
)
def test_bad_input_is_told_in_one_message(
    train: Train, overrides: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        train("task=semantic_segmentation", *overrides)
    output = capsys.readouterr()
    assert told in output.out + output.err
    assert "Traceback" not in output.out + output.err

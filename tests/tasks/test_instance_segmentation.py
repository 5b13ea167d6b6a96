"""``task=instance_segmentation`` as a user runs it."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cv_lab.callbacks.finite import RequireFiniteLoss
from cv_lab.data.instances import from_numbered
from cv_lab.data.shapes import Shapes
from cv_lab.labels import NonFiniteLossError
from cv_lab.report.page import write_report
from cv_lab.tasks.instance_segmentation import InstanceSegmentation, targets_of
from cv_lab.training.average_precision import Found, panoptic_quality
from cv_lab.trial.build import build_task, load_task
from cv_lab.trial.predict import predict
from cv_lab.trial.predictor import Predictor
from tests.conftest import TINY, composed

Train = Callable[..., Path]
LIGHT = ("model.channels=8", "model.backbone.width=8", "model.box_channels=16", "model.mask_layers=[8]")
SMALL = ("task=instance_segmentation", *TINY, "data.train_count=80", "batch_size=8", "data.val_fraction=0.2", *LIGHT)


def build(*overrides: str, task: bool = True) -> Any:
    config = composed("task=instance_segmentation", *overrides)
    return build_task(config, ("cat", "dog")) if task else config


def test_a_trial_leaves_figures_and_pictures(train: Train) -> None:
    (folder,) = train(*SMALL, "pictures.count=4").iterdir()
    result = json.loads((folder / "result.json").read_text())
    metrics = result["metrics"]
    assert result["monitor"]["name"] == "val/mask_map"
    parts = ("classifier", "box", "mask", "objectness", "rpn_box")
    for split in ("train", "val", "test"):
        assert sum(metrics[f"{split}/loss_{part}"] for part in parts) == pytest.approx(
            metrics[f"{split}/loss"], rel=1e-4
        )
    for kind in ("mask", "box"):
        names = ("map", "map_50", "map_75", "map_small", "mar_1", "mar_10", "mar_100")
        assert all(0 <= metrics[f"{split}/{kind}_{name}"] <= 1 for split in ("val", "test") for name in names)
        each = [metrics[f"test/{kind}_ap/{name}"] for name in result["classes"]]
        known = [value for value in each if value is not None]
        assert np.mean(known) == pytest.approx(metrics[f"test/{kind}_map"], abs=1e-6)
    assert metrics["train/dropped_boxes"] >= 0
    assert result["flops_per_image"] > 0
    assert isinstance(load_task(folder / "checkpoints/best.ckpt"), InstanceSegmentation)

    predictions = folder / "predictions"
    last = {"gallery_last_epoch"} if result["monitor"]["epoch"] < len(result["seconds"]["epochs"]) else set()
    pictures = {"gallery", "average_precision", "precision_recall", "best", "worst"} | last
    assert {path.stem for path in predictions.glob("*.png")} == pictures
    samples = json.loads((predictions / "samples.json").read_text())
    assert len(samples) == 4
    assert all(sample["truth"] for sample in samples)
    with open(predictions / "precision_recall.csv") as file:
        assert len(list(csv.DictReader(file))) == 101
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    assert {"predictions", "predictions_of_best", "precision_recall", "best", "worst"} <= set(events.Tags()["images"])


def test_without_masks_it_detects_boxes(train: Train, tmp_path: Path) -> None:
    parts = [override for override in LIGHT if "mask_layers" not in override]
    few = ("data.train_count=80", "batch_size=8", "data.val_fraction=0.2", "pictures.count=4", "pictures.score=0")
    study = train("task=instance_segmentation", "model.masks=false", *TINY, *few, *parts)
    (folder,) = study.iterdir()
    result = json.loads((folder / "result.json").read_text())
    assert result["monitor"]["name"] == "val/box_map"
    assert not [name for name in result["metrics"] if "mask" in name]
    assert result["units"]["test/box_map"]["unit"] == "share"
    samples = json.loads((folder / "predictions/samples.json").read_text())
    assert not [one for sample in samples for one in (*sample["truth"], *sample["found"]) if "segmentation" in one]
    assert {"gallery.png", "average_precision.png", "best.png"} <= {p.name for p in (folder / "predictions").iterdir()}

    image = np.zeros((50, 90, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    task = load_task(folder / "checkpoints/best.ckpt")
    assert task.target == "boxes"
    assert predict(task, [tmp_path / "a.png"], tmp_path / "out", score=0.0, force=False) == []
    rows = json.loads((tmp_path / "out/detections.json").read_text())
    assert rows
    keys = {"image", "image_id", "class", "category_id", "score", "bbox"}
    assert all(set(row) == keys for row in rows)
    assert Predictor(task)(image).masks is None
    write_report(study)
    assert "val/box\\_map" in (study / "report.md").read_text()


def test_one_class_trains_and_is_reported(train: Train, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        (tmp_path / "cells" / split).mkdir(parents=True)
        content: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
        for i in range(8):
            pixels = random.integers(0, 100, (40, 40, 3), np.uint8)
            pixels[5:25, 10:30] += 120
            Image.fromarray(pixels).save(tmp_path / "cells" / split / f"{i}.png")
            content["images"].append({"id": i, "file_name": f"{i}.png", "height": 40, "width": 40})
            outline = [10, 5, 30, 5, 30, 25, 10, 25]
            content["annotations"].append({"id": i + 1, "image_id": i, "category_id": 1, "segmentation": [outline]})
        categories = [{"id": 1, "name": "cell"}]
        (tmp_path / "cells" / f"{split}.json").write_text(json.dumps({**content, "categories": categories}))
    data = ("data=coco_folder", f"data_dir={tmp_path / 'cells'}", "data.image_size=[40,40]", "data.validation=test")
    study = train("task=instance_segmentation", *data, "epochs=1", "batch_size=4", "pictures.score=0", *LIGHT)
    (folder,) = (path for path in study.iterdir() if (path / "result.json").exists())
    metrics = json.loads((folder / "result.json").read_text())["metrics"]
    for split in ("val", "test"):
        for kind in ("mask", "box"):
            assert metrics[f"{split}/{kind}_ap/cell"] == pytest.approx(metrics[f"{split}/{kind}_map"], abs=1e-6)
    with open(folder / "predictions/precision_recall.csv") as file:
        assert list(next(csv.DictReader(file))) == ["recall", "cell"]
    assert {"gallery.png", "average_precision.png"} <= {path.name for path in (folder / "predictions").iterdir()}
    write_report(study)
    assert "| cell |" in (study / "report.md").read_text()


def test_a_classification_trial_gives_its_backbone(train: Train) -> None:
    (source,) = train(*TINY, "model=small_resnet", "model.width=8").iterdir()
    checkpoint = source / "checkpoints/best.ckpt"
    task = build("model.backbone.width=8", f"weights='{checkpoint}'")
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    own = task.model.extractor.state_dict()
    assert all(torch.equal(value, weights[f"model.{name}"]) for name, value in own.items())


def test_shapes_give_exact_instances() -> None:
    data = Shapes(train_count=12, test_count=1, image_size=48, target="instances")
    images = data.load("train")
    batch = images.__getitems__(list(range(12)))
    assert ((batch["classes"] >= 0).sum(1) == torch.tensor([len(o.classes) for o in images.objects])).all()
    assert batch["masks"].sum(1).max() == 1  # visible parts do not overlap
    assert (batch["masks"].flatten(2).sum(2) > 0).equal(batch["classes"] >= 0)


def test_bfloat16_computes_the_same_losses_and_finds_objects() -> None:
    task = build("model.backbone.width=8").eval()
    images = torch.randn(2, 3, 64, 64)
    masks = torch.zeros(1, 64, 64, dtype=torch.uint8)
    masks[:, 8:40, 8:40] = 1
    target = {"boxes": torch.tensor([[8.0, 8, 40, 40]]), "labels": torch.tensor([1]), "masks": masks}
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        torch.manual_seed(0)
        half, found = task.model.losses_and_detections(images, [target, target])
    with torch.no_grad():
        torch.manual_seed(0)
        full, _ = task.model.losses_and_detections(images, [target, target])
    assert found[0]["boxes"].dtype == torch.float32
    assert half["classifier"].item() == pytest.approx(full["classifier"].item(), rel=0.1)


def test_loss_weights_are_by_part() -> None:
    assert build("task.loss_weights.mask=2").loss_weights == {
        "classifier": 1,
        "box": 1,
        "mask": 2,
        "objectness": 1,
        "rpn_box": 1,
    }


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["+task.loss_weights.outline=2"], "outline"),
        (["loss=focal"], "loss=none"),
        (["model=small_cnn"], "finds no instances"),
        (["model.masks=false", "+task.loss_weights.outline=2"], "outline"),
        (["model.anchor_sizes=[8,16]"], "must have 4 entries"),
        (["weights=default"], "no published weights"),
    ],
)
def test_bad_input_is_told_in_one_message(overrides: list[str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        build(*overrides)


def test_other_data_is_refused(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train("task=instance_segmentation", "data=cifar10")
    assert "learns from instances for each image, but Cifar10 gives a label" in capsys.readouterr().out


def test_a_loss_that_is_no_number_names_the_images() -> None:
    class Trainer:
        global_step, current_epoch = 3, 0
        optimizers = (torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1),)

    module = torch.nn.Module()
    module.device = torch.device("cpu")  # type: ignore[assignment]
    batch = {"index": torch.tensor([0, 1]), "id": ["street_12", 4711]}
    with pytest.raises(NonFiniteLossError, match="street_12, 4711"):
        RequireFiniteLoss().on_train_batch_end(
            Trainer(),
            module,
            {"loss": torch.tensor(float("nan"))},
            batch,
            0,  # type: ignore[arg-type]
        )


def test_panoptic_quality_counts_overlaps_misses_and_false_alarms() -> None:
    numbers = np.zeros((10, 20), np.uint8)
    numbers[:, :10], numbers[:, 10:] = 1, 2
    truth = from_numbered(numbers, np.array([0, 1]), 1)
    nothing = from_numbered(np.zeros((10, 20), np.uint8), np.zeros(0, int), 2)

    def found(masks: list[Any], classes: list[int]) -> Found:
        n = len(masks)
        return Found(np.zeros((n, 4), np.float32), np.array(classes, int), np.ones(n, np.float32), masks)

    assert panoptic_quality(found([], []), nothing) is None
    assert panoptic_quality(found([], []), truth) == 0
    assert panoptic_quality(found(list(truth.truth), [0, 1]), truth) == 1
    assert panoptic_quality(found(list(truth.truth), [0, 0]), truth) == 0.5
    assert panoptic_quality(found([truth.truth[0]], [0]), truth) == pytest.approx(2 / 3)
    assert panoptic_quality(found([truth.truth[0]] * 2, [0, 0]), truth) == 0.5


@pytest.mark.parametrize("name", ["mask_rcnn_epochs", "mask_rcnn_learning_rate"])
def test_experiments_compose_on_both_data_sets(name: str) -> None:
    assert build(f"experiment={name}", task=False).data._target_.endswith("Coco")
    other = build(f"experiment={name}", "data=shapes_large", "model=small_mask_rcnn", "weights=none", task=False)
    assert other.data._target_.endswith("Shapes")
    assert other.model._target_.endswith("LightMaskRCNN")


def test_targets_are_the_objects_that_are_seen_in_their_order() -> None:
    masks = torch.zeros(3, 4, 8, 8, dtype=torch.uint8)
    classes = torch.tensor([[2, 5, 1, -1], [-1, -1, -1, -1], [3, 3, 0, 4]])
    masks[0, 0, 1:3, 2:6] = masks[0, 2, 4:8, 0:8] = 1  # the second has left the image
    masks[2, 0, 0:5, 0:5] = masks[2, 3, 5:8, 6:8] = 1
    masks[2, 1, 3, 1:6] = 1  # one pixel high
    first, second, third = targets_of({"masks": masks, "classes": classes})
    assert first["labels"].tolist() == [2, 1]
    assert first["boxes"].tolist() == [[2, 1, 6, 3], [0, 4, 8, 8]]
    assert torch.equal(first["masks"], masks[0, [0, 2]])
    assert (second["boxes"].shape, second["masks"].shape) == ((0, 4), (0, 8, 8))
    assert third["labels"].tolist() == [3, 3, 4]
    assert third["boxes"][1].tolist() == [1, 3, 6, 4]
    for target in targets_of({"masks": masks[:, :0], "classes": classes[:, :0]}):
        assert (target["boxes"].shape, target["masks"].shape) == ((0, 4), (0, 8, 8))

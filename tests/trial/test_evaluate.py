"""Measure a checkpoint on an annotated data set that it was not trained with."""

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from cv_lab.data.in_memory import InMemoryImages
from cv_lab.trial import evaluate
from tests.conftest import PLAIN, TINY

Train = Callable[..., Path]


class Holder:
    """What of a data module or a task has classes."""

    def __init__(self, classes: tuple[str, ...], target: str = "label") -> None:
        images = torch.zeros(len(classes), 3, 4, 4, dtype=torch.uint8)
        self.classes, self.target = classes, target
        self.test = InMemoryImages(images, torch.arange(len(classes)), classes)

    def files_of(self, split: str) -> list[str]:
        return [f"{split}{row}" for row in getattr(self, split).rows]


def test_a_checkpoint_repeats_its_own_test(train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = train(*TINY, *PLAIN, "model=small_cnn", "model.width=4", "seed=3")
    (checkpoint,) = study.glob("*/checkpoints/best.ckpt")
    data = ["data=shapes", *TINY[:3], "seed=3"]
    out = tmp_path / "out"
    evaluate.main([str(checkpoint), str(checkpoint), *data, "--out", str(out)])
    trained = json.loads((checkpoint.parents[1] / "result.json").read_text())["metrics"]
    rows = list(csv.DictReader((out / "metrics.csv").open()))
    for row in rows:
        assert float(row["value"]) == pytest.approx(trained[f"test/{row['metric']}"], abs=1e-6)
    *_, accuracy, f1 = rows
    assert accuracy["metric"] == "accuracy"
    assert float(accuracy["low"]) <= float(accuracy["value"]) <= float(accuracy["high"])
    assert (float(accuracy["difference"]), float(accuracy["p"]), accuracy["n"]) == (0, 1, "40")
    assert f1["metric"] == "f1"
    assert (out / "2/test.csv").exists()
    told = capsys.readouterr().out
    assert "95 % interval" in told
    assert told.count("+0 %, p = 1") == 2  # of accuracy and F1
    written = (out / "index.html").read_text()
    assert "+0 %, p = 1" in written
    assert '<img style="max-width:100%" src="2/predictions/gallery.png">' in written
    assert (out / "2/predictions/gallery.png").exists()
    with pytest.raises(SystemExit, match="exist already: give --force"):
        evaluate.main([str(checkpoint), *data, "--out", str(out)])

    for name in ("train/dragon", "train/ring", "test/dragon", "test/ring"):
        folder = tmp_path / "own" / name
        folder.mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (8, 8), (i, 0, 0)).save(folder / f"{i}.png")
    own = ["data=folder", f"data.root={tmp_path}/own", f"cache_dir={tmp_path}/cache", "--out", str(tmp_path / "other")]
    with pytest.raises(SystemExit, match="classes dragon, which the checkpoint does not know"):
        evaluate.main([str(checkpoint), *own])


OBJECTS = ("data.train_count=60", "data.test_count=8", "data.image_size=64")


@pytest.mark.parametrize(
    ("options", "data", "images"),
    [
        (("task=semantic_segmentation", "model.width=8"), ("data=shapes", *TINY[:3]), 240),
        (("task=instance_segmentation", "model.backbone.width=8", *OBJECTS), ("data=shapes_large", *OBJECTS), 68),
    ],
    ids=["masks", "objects"],
)
def test_masks_and_objects_are_measured_on_one_split_or_all(
    train: Train, tmp_path: Path, options: tuple[str, ...], data: tuple[str, ...], images: int
) -> None:
    (checkpoint,) = train(*TINY, *options, *PLAIN).glob("*/checkpoints/best.ckpt")
    trained = json.loads((checkpoint.parents[1] / "result.json").read_text())["metrics"]
    for split in ("val", "all"):
        out = tmp_path / split
        evaluate.main([str(checkpoint), *data, "--split", split, "--out", str(out), f"cache_dir={tmp_path}/cache"])
        rows = list(csv.DictReader((out / "metrics.csv").open()))
        assert (out / "predictions/gallery.png").exists()
        if split == "all":
            assert {row["n"] for row in rows} == {str(images)}
            continue
        for row in rows:
            expected = trained[f"{split}/{row['metric']}"]
            assert float(row["value"]) == pytest.approx(
                float("nan") if expected is None else expected, abs=1e-5, nan_ok=True
            )
    if "test/mean_iou" in trained:
        assert len((out / "test.csv").read_text().splitlines()) == images + 1


def test_checkpoints_with_other_metrics_have_empty_cells() -> None:
    row = {"unit": "share", "low": None, "high": None, "p": None, "checkpoint": "a.ckpt"}
    rows = [
        {**row, "number": 1, "metric": "f1", "value": 0.5},
        {**row, "number": 2, "metric": "iou", "value": math.nan},
    ]
    assert evaluate.by_metric(rows) == {"f1": [["50 %"], []], "iou": [[], ["-"]]}


def test_names_in_brackets_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"unit": "share", "low": None, "high": None, "p": None, "checkpoint": "a.ckpt", "number": 1, "n": 1}
    evaluate.print_table([{**row, "metric": f"iou/{name}", "value": 0.5} for name in ("[red]", "[/x]")])
    printed = capsys.readouterr().out
    assert "iou/[red]" in printed
    assert "iou/[/x]" in printed


def test_all_images_are_those_of_each_set_once() -> None:
    data = Holder(("ant", "cat"))
    data.train, data.val, data.batch_size = data.test.subset([0, 1, 1]), data.test, 2
    assert evaluate.restrict(data, "all") == 5  # validation and test are one set here
    batches = list(data.test_dataloader())
    assert torch.cat([batch["index"] for batch in batches]).tolist() == [0, 1, 2, 3, 4]
    assert torch.cat([batch["label"] for batch in batches]).tolist() == [0, 1, 1, 0, 1]
    assert data.files_of("test") == ["train0", "train1", "train1", "test0", "test1"]
    data = Holder(("ant", "cat"))
    data.train, data.val = data.test.subset([0, 1, 1]), data.test
    assert evaluate.restrict(data, "train") == 3
    assert data.files_of("test") == ["train0", "train1", "train1"]
    assert data.test is data.val is data.train


def test_classes_are_matched_by_name() -> None:
    data = Holder(("cat", "ant"))
    evaluate.match_classes(Holder(("ant", "bee", "cat")), data)  # type: ignore[arg-type]
    assert data.test.labels.tolist() == [2, 0]
    assert data.classes == data.test.classes == ("ant", "bee", "cat")
    with pytest.raises(ValueError, match="the same classes in the same order"):
        evaluate.match_classes(Holder(("ant", "cat"), "mask"), Holder(("cat", "ant")))  # type: ignore[arg-type]


def test_a_data_set_must_be_named() -> None:
    with pytest.raises(SystemExit, match="give a checkpoint, and the data set"):
        evaluate.main(["any.ckpt"])

"""Measure a checkpoint on an annotated data set that it was not trained with."""

import csv
import json
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
    assert "95 % interval" in capsys.readouterr().out
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

"""Multi-label classification, from training to report, prediction and export."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from PIL import Image

from cv_lab.data.scenes import CLASSES
from cv_lab.report.page import write_report
from cv_lab.tasks.multilabel import MultiLabelClassification
from cv_lab.trial import evaluate, export, predict
from cv_lab.trial.build import build_task, load_task
from tests.conftest import PLAIN, TINY, composed

Train = Callable[..., Path]


def config_of(*overrides: str) -> DictConfig:
    return composed("task=multilabel", "model=small_cnn", "model.width=4", *overrides)


def task_of(*overrides: str, classes: tuple[str, ...] = ("a", "b", "c")) -> MultiLabelClassification:
    task = build_task(config_of(*overrides), classes)
    assert isinstance(task, MultiLabelClassification)
    return task


def test_one_trial_serves_table_report_prediction_and_export(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = train("task=multilabel", "task.positive_weights=balanced", *TINY, "logger=none", "pictures.count=8")
    (folder,) = [path.parent for path in study.glob("*/result.json")]
    result = json.loads((folder / "result.json").read_text())
    printed = capsys.readouterr().out
    share = f"{100 * result['monitor']['best']:.2f} %"
    assert f"val/mAP {share}" in printed
    metrics, units = result["metrics"], result["units"]
    assert units["val/mAP"] == units["test/ap/circle"] == {"unit": "share", "mode": "max"}
    assert units["train/loss"] == {"unit": "plain", "mode": "min"}
    known = [metrics[f"test/ap/{name}"] for name in CLASSES if metrics[f"test/ap/{name}"] is not None]
    assert metrics["test/mAP"] == pytest.approx(np.mean(known), abs=1e-6)
    rows = list(csv.DictReader((folder / "predictions/class_scores.csv").open()))
    assert [row["class"] for row in rows] == list(CLASSES)
    assert float(rows[0]["ap"]) == pytest.approx(metrics["test/ap/circle"])
    samples = json.loads((folder / "predictions/samples.json").read_text())
    assert len(samples) == len(list(folder.glob("predictions/images/*.png"))) == 8
    certain = [name for name, p in samples[0]["probabilities"].items() if p > 0.5]
    assert samples[0]["predicted"] == certain
    assert (folder / "predictions/gallery.png").exists()

    write_report(study)
    page = (study / "report.html").read_text()
    assert f"{100 * metrics['test/mAP']:.2f} %" in page
    assert "crescent" in page

    checkpoint = folder / "checkpoints/best.ckpt"
    task, images = load_task(checkpoint), torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    assert task.positive_weight.max() > 1  # type: ignore[operator]
    with torch.inference_mode():
        expected = task.model(task.preprocessing(images)).sigmoid()
    export.main([str(checkpoint), str(tmp_path / "network.pt2")])
    exported = torch.export.load(tmp_path / "network.pt2").module()(images)
    torch.testing.assert_close(exported, expected, rtol=1e-4, atol=1e-5)

    for number, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / f"{number}.png")
    files = [str(tmp_path / f"{number}.png") for number in range(3)]
    predict.main([str(checkpoint), *files, "--out", str(tmp_path / "out")])
    written = list(csv.DictReader((tmp_path / "out/predictions.csv").open()))
    assert [row["image"] for row in written] == files
    for row, probabilities in zip(written, expected.tolist(), strict=True):
        assert [float(row[f"probability/{name}"]) for name in CLASSES] == pytest.approx(probabilities, abs=1e-4)
        given = [name for name in CLASSES if float(row[f"probability/{name}"]) > 0.5]
        assert row["labels"] == ";".join(given)
        assert [name for name in CLASSES if row[f"decision/{name}"] == "1"] == given

    evaluate.main([str(checkpoint), "data=shapes", *TINY[:3], "--split", "all", "--out", str(tmp_path / "all")])
    rows = list(csv.DictReader((tmp_path / "all/predictions/class_scores.csv").open()))
    labels = np.load(tmp_path / "all/test.npz")["labels"]
    assert len(labels) == sum(result["images"].values())
    assert [int(row["images"]) for row in rows] == labels.sum(0).tolist()


def test_a_labels_table_is_trained_on_and_predicted(train: Train, tmp_path: Path) -> None:
    """Images are red, green, both or neither: what a network of one epoch can learn."""
    rows = ["file,split,red,green"]
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(96):
        red, green = number % 2, number // 2 % 2
        noise = np.random.default_rng(number).integers(0, 40, (20, 24, 3))
        Image.fromarray(np.add(noise, [200 * red, 200 * green, 0]).astype(np.uint8)).save(folder / f"{number}.png")
        rows.append(f"{number}.png,{('train', 'train', 'val', 'test')[number // 4 % 4]},{red},{green}")
    (folder / "labels.csv").write_text("\n".join(rows))
    overrides = (
        "data=labels_csv",
        f"data.csv={folder}/labels.csv",
        "data.image_size=16",
        f"cache_dir={tmp_path}/cache",
    )
    study = train("task=multilabel", *overrides, *PLAIN, "batch_size=8", "epochs=6", "augmentation=none")
    (path,) = study.glob("*/result.json")
    result = json.loads(path.read_text())
    assert result["classes"] == ["red", "green"]
    assert result["images"] == {"train": 48, "val": 24, "test": 24}
    assert result["metrics"]["test/mAP"] > 0.95


def test_loss_is_torchs_with_positive_weights() -> None:
    task = task_of()
    logits, truth = torch.tensor([[2.0, -1.0, 0.5], [-3.0, 0.0, 1.0]]), torch.tensor([[1, 0, 1], [0, 0, 1]])
    task.positive_weight.copy_(torch.tensor([3.0, 1.0, 0.5]))
    task.forward = lambda images: logits  # type: ignore[method-assign, assignment]
    loss = task.step("train", {"image": torch.zeros(2, 3, 8, 8), "labels": truth.byte()})
    expected = F.binary_cross_entropy_with_logits(logits, truth.float(), pos_weight=torch.tensor([3.0, 1.0, 0.5]))
    torch.testing.assert_close(loss, expected)


def test_a_single_label_and_all_positives() -> None:
    task = task_of(classes=("cat",))
    for split in ("train", "val"):
        task.step(split, {"image": torch.zeros(3, 3, 8, 8), "labels": torch.ones(3, 1, dtype=torch.uint8)})
        scalars = task.summarise(task.split_metrics(split))
        assert scalars["mAP"].item() == scalars["ap/cat"].item() == 1.0
    assert task.predict(torch.zeros(2, 3, 8, 8)).shape == (2, 1)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("loss=cross_entropy", "CrossEntropy cannot replace: give loss=none"),
        ("task.positive_weights=all", "none or balanced"),
    ],
)
def test_what_has_no_effect_is_refused(override: str, words: str) -> None:
    with pytest.raises(Exception, match=words):
        task_of(override)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("data=cifar10",), "learns from a set of labels"),
        (("augmentation=strong",), "mixed images"),
    ],
)
def test_data_that_does_not_fit_is_refused(
    train: Train, capsys: pytest.CaptureFixture[str], overrides: tuple[str, ...], words: str
) -> None:
    with pytest.raises(SystemExit):
        train("task=multilabel", *overrides, *PLAIN)
    assert words in capsys.readouterr().out


def test_splits_without_any_label_are_refused(train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["file,labels,split"]
    for number in range(8):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{'cat' if number < 4 else ''},{('train', 'train', 'val', 'test')[number // 2]}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    with pytest.raises(SystemExit):
        train("task=multilabel", "data=labels_csv", f"data.csv={tmp_path}/labels.csv", "batch_size=2", *PLAIN)
    assert "none of the 2 val images has a label" in capsys.readouterr().out

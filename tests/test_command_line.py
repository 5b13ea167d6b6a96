"""``train.py`` as a user runs it."""

import csv
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from cv_lab.trial.build import load_task
from tests.conftest import ROOT, TINY, train_in

Train = Callable[..., Path]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "train.py", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("flags", [["--help"], ["--cfg", "job"]])
def test_help_and_config_import_no_torch(flags: list[str]) -> None:
    code = (
        f"import runpy, sys; sys.argv = ['train.py', *{flags!r}]\n"
        "try: runpy.run_path('train.py', run_name='__main__')\n"
        "finally: assert not {'torch', 'pytorch_lightning', 'matplotlib'} & set(sys.modules), 'heavy import'"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert "whitened_cnn" in answer.stdout


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["optimizer=adm"], ["adm", "adamw"]),  # what would be accepted is listed
        (["lr=abc"], ["abc", "lr"]),
        (["batch_sise=3"], ["batch_sise"]),
    ],
)
def test_a_wrong_override_is_named(overrides: list[str], told: list[str]) -> None:
    answer = run(*overrides)
    assert answer.returncode != 0
    assert all(word in answer.stderr for word in told), answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trial's folder, of the default options on few scenes."""
    (folder,) = train_in(tmp_path_factory.mktemp("trial"), *TINY, "epochs=2").iterdir()
    return folder


def test_a_trial_leaves_a_complete_folder(folder: Path) -> None:
    assert folder.name == "batch_size=32,data.image_size=32,data.test_count=40,data.train_count=200,epochs=2"
    record, result = (json.loads((folder / name).read_text()) for name in ("trial.json", "result.json"))

    assert record["status"] == "completed"
    assert record["error"] is None
    assert record["parameters"]["optimizer"] == "adam"
    assert record["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert result["images"] == {"train": 170, "val": 30, "test": 40}
    assert result["monitor"]["validation"] == "split"
    assert 0 <= result["metrics"]["test/accuracy"] <= 1
    assert len(result["seconds"]["epochs"]) == 2
    # A convolution of 3 to 32 channels over 32 x 32 pixels alone, counting multiplications and additions.
    assert result["flops_per_image"] > 2 * 32 * 32 * 3 * 9 * 32

    with open(folder / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert {"train/loss", "train/accuracy", "val/loss", "val/accuracy", "lr"} <= set(rows[0])

    samples = json.loads((folder / "predictions/samples.json").read_text())
    assert len(samples) == len(list((folder / "predictions/images").glob("*.png"))) == 30
    assert (folder / "predictions/gallery.png").exists()
    with open(folder / "predictions/confusion_matrix.csv") as file:
        counts = [[int(cell) for name, cell in row.items() if name != "truth"] for row in csv.DictReader(file)]
    assert sum(map(sum, counts)) == 40
    assert sum(counts[k][k] for k in range(len(counts))) / 40 == pytest.approx(result["metrics"]["test/accuracy"])

    assert (folder / ".hydra/config.yaml").exists()
    assert not list(folder.rglob(".*.[0-9]*"))  # no temporary file is left behind


def test_tensorboard_holds_scalars_pictures_and_hparams(folder: Path) -> None:
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0, "images": 0})
    events.Reload()
    tags = events.Tags()
    assert {"train/loss", "val/accuracy", "best/test/accuracy", "lr"} <= set(tags["scalars"])
    assert {"predictions", "predictions_of_best", "confusion_matrix"} <= set(tags["images"])
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"optimizer" in content
    content = events.SummaryMetadata("_hparams_/experiment").plugin_data.content
    shown = HParamsPluginData.FromString(content).experiment
    # What the user asked for is what TensorBoard shows first.
    assert {info.name for info in shown.hparam_infos if info.differs} == {option.partition("=")[0] for option in TINY}
    assert [info.name.tag for info in shown.metric_infos][:2] == ["best/val/accuracy", "best/test/accuracy"]
    result = json.loads((folder / "result.json").read_text())
    assert events.Scalars("best/test/accuracy")[-1].value == pytest.approx(result["metrics"]["test/accuracy"])


def test_a_checkpoint_loads_safely_and_predicts_alike(folder: Path) -> None:
    saved = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    task = load_task(folder / "checkpoints/last.ckpt")
    for name, value in task.state_dict().items():
        assert torch.equal(value, saved["state_dict"][name])


def test_the_network_trains_in_training_mode(train: Train) -> None:
    (folder,) = train(*TINY, "model=resnet9", "model.width=4").iterdir()
    state = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    counted = [value.item() for name, value in state.items() if name.endswith("num_batches_tracked")]
    assert set(counted) == {5}  # of 170 images, five batches of 32: each BatchNorm saw every one


def test_same_seed_same_metrics_other_seed_other_metrics(train: Train) -> None:
    first = train(*TINY, "seed=5", "augmentation=strong")
    one = next(first.glob("*seed=5*/metrics.csv")).read_text()
    again = train(*TINY, "seed=5", "augmentation=strong", "study=again").parent / "again"
    other = train(*TINY, "seed=6", "augmentation=strong")
    assert next(again.glob("*/metrics.csv")).read_text() == one
    assert next(other.glob("*seed=6*/metrics.csv")).read_text() != one


def test_a_multirun_ends_with_a_table_although_a_trial_failed(
    train: Train, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    with pytest.raises(SystemExit) as exit_info:
        train("-m", *TINY, "optimizer=sgd", "lr=1e-3,1e38")
    assert exit_info.value.code == 1
    printed = capsys.readouterr().out
    assert "val/accuracy" in printed
    assert "s per 1 %" in printed
    assert "the training loss is" in printed


def test_a_loss_that_is_no_number_fails_the_trial(train: Train, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as exit_info:
        train(*TINY, "optimizer=sgd", "lr=1e38")
    assert exit_info.value.code == 1
    (folder,) = (tmp_path / "s").iterdir()
    record = json.loads((folder / "trial.json").read_text())
    assert record["status"] == "failed"
    assert "step" in record["error"]["message"]
    assert "NonFiniteLossError" in record["error"]["traceback"]
    assert "NonFiniteLossError" in (folder / "train.log").read_text()
    assert not (folder / "result.json").exists()


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["model=torchvision", "model.name=resnet81"], "resnet18"),
        (["model=timm", "model.name=no_such_net"], "timm has no network"),
        (["batch_size=1000"], "at most batch_size=170"),
        (["data=cifar10", "data.download=false", "data_dir=nowhere"], "data.download=true"),
        (["data.validation=val"], "split or test"),
        (["data.train_subset=1000000"], "from 1 to"),
        (["epochs=0"], "epochs=0 trains nothing"),
    ],
)
def test_bad_input_is_told_in_one_message(
    train: Train, overrides: list[str], told: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    sizes = () if "data=cifar10" in overrides else TINY
    with pytest.raises(SystemExit) as exit_info:
        train(*sizes, *overrides)
    assert exit_info.value.code == 1
    output = capsys.readouterr()
    assert told in output.out + output.err
    assert "Traceback" not in output.out + output.err
    assert not list(tmp_path.rglob("result.json"))


def test_an_occupied_folder_is_refused_with_the_difference(
    train: Train, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    where = f"hydra.run.dir={tmp_path}/mine"
    train(*TINY, where)
    before = (tmp_path / "mine/result.json").read_text()
    with pytest.raises(SystemExit):
        train(*TINY, where, "lr=0.5")
    assert "lr: 0.01 -> 0.5" in capsys.readouterr().out
    assert (tmp_path / "mine/result.json").read_text() == before
    assert json.loads((tmp_path / "mine/trial.json").read_text())["status"] == "completed"


def test_validation_on_the_test_set_is_said(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    (folder,) = train(*TINY, "data.validation=test").iterdir()
    result = json.loads((folder / "result.json").read_text())
    assert result["images"] == {"train": 200, "val": 40, "test": 40}
    assert result["monitor"]["validation"] == "test"
    assert "no unbiased estimate" in capsys.readouterr().out


@pytest.mark.parametrize("debug", ["one_batch", "overfit", "limited", "profiler"])
def test_debug_modes_run(train: Train, debug: str) -> None:
    sizes = [size for size in TINY if not size.startswith("epochs")]
    (folder,) = train(*sizes, f"debug={debug}", *(["epochs=2"] if debug == "overfit" else [])).iterdir()
    assert json.loads((folder / "trial.json").read_text())["status"] == "completed"
    if debug == "profiler":
        assert list(folder.glob("*profile*"))


def test_tools_of_fast_recipes_by_override(train: Train) -> None:
    (folder,) = train(
        *TINY,
        "epochs=6",
        "model=small_cnn",  # without batch normalisation, whose statistics move at any learning rate
        "lr=0",
        "callbacks=[default,ema,early_stopping]",
        "callbacks.early_stopping.patience=2",
        "trainer.gradient_clip_val=1",
        "optimizer=muon",
        "augmentation=alternating",
        "task.flip_tta=true",
    ).iterdir()
    result = json.loads((folder / "result.json").read_text())
    assert 0 <= result["metrics"]["test/accuracy_tta"] <= 1
    assert result["last"]["epoch"] == 3  # a learning rate of 0 never improves: one epoch, then the patience of two
    assert math.isfinite(result["metrics"]["test/loss"])

"""Features computed once: equal to the plain path, found again, and refused where they would be wrong."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from cv_lab.models.backbones import TimmNetwork
from cv_lab.models.cut import CutNetwork
from cv_lab.trial.build import load_task
from tests.conftest import PLAIN, TINY

Train = Callable[..., Path]
PROBE = (*TINY, *PLAIN, "task=linear_probing", "model=timm", "model.name=test_resnet", "model.image_size=32")


@pytest.fixture
def weights(tmp_path: Path) -> str:
    """A file of weights for test_resnet."""
    torch.manual_seed(0)
    path = tmp_path / "test_resnet.safetensors"
    save_file(TimmNetwork("test_resnet")(num_classes=11).state_dict(), path)
    return f"weights={path}"


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Images that went through a backbone, one entry a call; calls without data do not count."""
    counted: list[int] = []
    original = CutNetwork.features

    def count(self: CutNetwork, images: torch.Tensor) -> torch.Tensor:
        if images.device.type != "meta":
            counted.append(len(images))
        return original(self, images)

    monkeypatch.setattr(CutNetwork, "features", count)
    return counted


def result(study: Path, part: str = "") -> Any:
    (path,) = study.glob(f"*{part}*/result.json")
    return json.loads(path.read_text())


def in_study(train: Train, tmp_path: Path, name: str, *overrides: str) -> Any:
    train(*overrides, f"study={name}", f"cache_dir={tmp_path}/cache")
    return result(tmp_path / name)


def test_both_paths_end_alike(train: Train, tmp_path: Path, weights: str) -> None:
    cached = in_study(train, tmp_path, "on", *PROBE, weights, "epochs=3", "task.knn=5")
    plain = in_study(train, tmp_path, "off", *PROBE, weights, "epochs=3", "task.knn=5", "cache=off")
    assert cached["metrics"].keys() == plain["metrics"].keys()
    for name in ("train/accuracy", "val/accuracy", "test/accuracy", "test/knn_accuracy"):
        assert cached["metrics"][name] == plain["metrics"][name]
    assert cached["metrics"]["train/loss"] == pytest.approx(plain["metrics"]["train/loss"], rel=1e-4)
    assert cached["flops_per_image"] == plain["flops_per_image"]
    assert cached["seconds"]["features"] > 0
    assert "features" not in plain["seconds"]


def test_a_study_runs_the_backbone_once_and_its_repetition_not_at_all(
    train: Train,
    tmp_path: Path,
    weights: str,
    passes: list[int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    study = (*PROBE, weights, "lr=1e-2,1e-3", f"cache_dir={tmp_path}/cache", "hydra/launcher=basic", "-m")
    train(*study)
    assert sum(passes) == 240  # 200 to train and validate, 40 to test
    assert "s per 1 % with features" in capsys.readouterr().out
    passes.clear()
    train(*study, "study=again")
    train(*PROBE, weights, f"cache_dir={tmp_path}/cache", "seed=7", "study=other_split")
    head_only = [override.replace("linear_probing", "finetuning") for override in PROBE]
    train(*head_only, weights, f"cache_dir={tmp_path}/cache", "study=finetuning")
    assert passes == []
    assert result(tmp_path / "again", "lr=0.01")["features_computed"] is False


def test_trials_that_run_at_once_compute_them_once(train: Train, tmp_path: Path, weights: str) -> None:
    train("-m", *PROBE, weights, "seed=1,2", "jobs=2", f"cache_dir={tmp_path}/cache")
    told = "".join(path.read_text() for path in (tmp_path / "s").glob("*/train.log"))
    assert told.count("running the backbone once over 200 images") == 1
    assert told.count("running the backbone once over 40 images") == 1


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["cache=off"], "cache=off"),
        (["augmentation=standard"], "augmentation is random"),
        (["task=finetuning", "task.trained=1"], "1 of the backbone's 5 stages train"),
        (["task=finetuning", "task.dropout_below=true"], "dropout below the cut"),
    ],
)
def test_a_trial_that_cannot_use_them_says_why(
    train: Train, tmp_path: Path, overrides: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    in_study(train, tmp_path, "s", *PROBE, "weights=none", *overrides)
    assert told in capsys.readouterr().out
    assert not (tmp_path / "cache").exists()


def test_what_changes_features_changes_their_file(train: Train, tmp_path: Path, weights: str) -> None:
    def files() -> int:
        return len(list((tmp_path / "cache/features").glob("*.safetensors")))

    in_study(train, tmp_path, "a", *PROBE, weights)
    assert files() == 2
    in_study(train, tmp_path, "b", *PROBE, weights, "lr=0.1", "batch_size=16", "optimizer=sgd")
    assert files() == 2
    in_study(train, tmp_path, "c", *PROBE, weights, "model.image_size=48")
    assert files() == 4
    in_study(train, tmp_path, "d", *PROBE, weights, "data.train_subset=50")
    assert files() == 5  # the test set's are found again
    in_study(train, tmp_path, "e", *PROBE, "weights=none", "seed=3")
    assert files() == 7


def test_a_cache_that_cannot_be_written_is_said_and_the_trial_goes_on(
    train: Train, tmp_path: Path, weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    assert in_study(train, tmp_path, "s", *PROBE, weights)["metrics"]["test/accuracy"] >= 0
    assert "cannot be written" in capsys.readouterr().out


def test_checkpoints_hold_the_head_alone_and_load_whole(train: Train, tmp_path: Path, weights: str) -> None:
    in_study(train, tmp_path, "s", *PROBE, weights)
    (path,) = (tmp_path / "s").glob("*/checkpoints/best.ckpt")
    saved = torch.load(path, weights_only=True)
    assert not any(key.startswith("model.backbone.") for key in saved["state_dict"])
    task = load_task(path)
    torch.manual_seed(0)
    original = TimmNetwork("test_resnet")(num_classes=11).state_dict()
    restored = {key.removeprefix("model.backbone."): value for key, value in task.state_dict().items()}
    assert all(torch.equal(restored[key], value) for key, value in original.items() if not key.startswith("fc."))
    assert task.preprocessing.size == 32
    with pytest.raises(SystemExit):
        train(*PROBE, f"weights='{path}'", f"cache_dir={tmp_path}/cache", "study=from_head")
    file = Path(weights.partition("=")[2])
    moved = file.rename(tmp_path / "moved.safetensors")
    with pytest.raises(FileNotFoundError, match=r"holds the trained head alone.*--weights FILE"):
        load_task(path)
    again = load_task(path, weights=moved).state_dict()
    assert all(torch.equal(again[key], value) for key, value in task.state_dict().items())
    save_file(TimmNetwork("test_resnet")(num_classes=11).state_dict(), file)
    with pytest.raises(ValueError, match=r"gives another backbone now"):
        load_task(path)


def test_a_trial_of_the_lab_can_be_probed(train: Train, tmp_path: Path) -> None:
    own = ("model=small_cnn", "model.width=8")
    train(*TINY, *PLAIN, *own, "study=scratch")
    (path,) = (tmp_path / "scratch").glob("*/checkpoints/best.ckpt")
    probe = (*TINY, *PLAIN, "task=linear_probing", *own, f"weights='{path}'")
    in_study(train, tmp_path, "probe", *probe)
    saved = torch.load(path, weights_only=True)["state_dict"]
    (probed,) = (tmp_path / "probe").glob("*/checkpoints/best.ckpt")
    assert torch.equal(load_task(probed).state_dict()["model.backbone.0.0.weight"], saved["model.0.0.weight"])
    in_study(train, tmp_path, "again", *TINY, *PLAIN, *own, f"weights='{path}'", "lr=0")
    (again,) = (tmp_path / "again").glob("*/checkpoints/best.ckpt")
    assert torch.equal(load_task(again).state_dict()["model.0.0.weight"], saved["model.0.0.weight"])


def test_a_trial_from_scratch_normalises_for_those_that_start_from_it(train: Train, tmp_path: Path) -> None:
    """Not by the figures of the network's publisher, whose weights it never had."""
    own = ("model=timm", "model.name=test_resnet")
    train(*TINY, *PLAIN, *own, "study=scratch")
    (path,) = (tmp_path / "scratch").glob("*/checkpoints/best.ckpt")
    in_study(train, tmp_path, "probe", *TINY, *PLAIN, "task=linear_probing", *own, f"weights='{path}'")
    (probed,) = (tmp_path / "probe").glob("*/checkpoints/best.ckpt")
    assert load_task(probed).preprocessing == load_task(path).preprocessing
    assert load_task(path).preprocessing.mean != TimmNetwork("test_resnet").published().mean


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["model.name=test_vit"], "do not fit"),
        (["weights=nowhere.pt"], "there is no"),
        (["model=small_cnn", "weights=default"], "has no published weights"),
        (["task=finetuning", "task.trained=12"], "give 0 to 5, or -1"),
        (["task=finetuning", "task.trained=most"], "give head, a number of stages, or all"),
        (["task.knn=0"], "at least 1 neighbour"),
    ],
)
def test_bad_input_is_told(
    train: Train, weights: str, overrides: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [override for override in PROBE if not (override.startswith("model") and "model=small_cnn" in overrides)]
    with pytest.raises(SystemExit):
        train(*given, weights, *overrides)
    assert told in capsys.readouterr().out

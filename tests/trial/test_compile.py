"""``trainer.compile=true`` makes the network faster and changes nothing else."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch._dynamo.utils import counters

from cv_lab.trial.build import load_task
from scripts import export, predict
from tests.conftest import PLAIN, TINY

pytestmark = pytest.mark.slow

Train = Callable[..., Path]
# One shape of batches in training and one in evaluation: each other is compiled anew.
SHORT = (*TINY, "data.train_count=64", "data.test_count=16", "batch_size=16", "data.val_fraction=0.25")
RECIPE = ("model=whitened_cnn", "model.widths=[8,8,8]", "callbacks=[default,ema]")
LIGHT = ("model.channels=8", "model.backbone.width=8", "model.box_channels=16", "model.mask_layers=[8]")
PROBE = ("task=linear_probing", "model=timm", "model.name=test_resnet", "model.image_size=64", "weights=none")


@pytest.fixture
def compiled_graphs() -> Callable[[], int]:
    torch.compiler.reset()
    counters.clear()
    return lambda: counters["stats"]["unique_graphs"]


def outcome(study: Path) -> tuple[Path, dict[str, torch.Tensor], dict[str, float]]:
    (folder,) = study.parent.glob(f"{study.name}/*/trial.json")
    checkpoint = folder.parent / "checkpoints/best.ckpt"
    metrics = json.loads((folder.parent / "result.json").read_text())["metrics"]
    return checkpoint, torch.load(checkpoint, weights_only=True)["state_dict"], metrics


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_a_compiled_trial_learns_the_same(train: Train, tmp_path: Path, compiled_graphs: Callable[[], int]) -> None:
    overrides = (*SHORT, *PLAIN, "model=small_cnn", "model.width=4", "study=s")
    _, plain, expected = outcome(train(*overrides))
    assert compiled_graphs() == 0
    checkpoint, state, metrics = outcome(
        train(*overrides, "trainer.compile=true", "study=compiled").parent / "compiled"
    )
    assert compiled_graphs() > 0
    assert list(state) == list(plain)
    for name, value in plain.items():
        torch.testing.assert_close(state[name], value, rtol=1e-3, atol=1e-4)
    assert metrics["train/loss"] == pytest.approx(expected["train/loss"], rel=1e-3)

    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    task = load_task(checkpoint)
    export.main([str(checkpoint), str(tmp_path / "network.pt2")])
    with torch.inference_mode():
        probabilities = task(task.preprocessing(images)).softmax(1)
    exported = torch.export.load(tmp_path / "network.pt2").module()(images)
    torch.testing.assert_close(exported, probabilities, rtol=1e-4, atol=1e-5)
    Image.new("RGB", (32, 32)).save(tmp_path / "one.png")
    predict.main([str(checkpoint), str(tmp_path / "one.png"), "--out", str(tmp_path / "out")])
    assert (tmp_path / "out/predictions.csv").exists()


@pytest.mark.parametrize(
    "overrides",
    [
        RECIPE,
        ("task=semantic_segmentation", "model.width=4"),
        ("task=instance_segmentation", *LIGHT, "batch_size=8"),
        (*PROBE, "augmentation=standard"),
        PROBE,
    ],
    ids=["recipe", "segmentation", "instances", "probe", "probe of kept features"],
)
def test_all_tasks_train_compiled(
    train: Train,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    compiled_graphs: Callable[[], int],
    overrides: tuple[str, ...],
) -> None:
    # What is traced is run by torch as it is: the same numbers to the bit, without a compiler.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    shared = (*SHORT, *PLAIN, *overrides, f"cache_dir={tmp_path}/cache")
    _, plain, expected = outcome(train(*shared))
    assert compiled_graphs() == 0
    _, state, metrics = outcome(train(*shared, "trainer.compile=true", "study=compiled").parent / "compiled")
    assert compiled_graphs() > 0
    assert list(state) == list(plain)
    assert all(torch.equal(state[name], value) for name, value in plain.items())
    assert metrics == expected


def test_other_values_are_refused(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train(*TINY, *PLAIN, "trainer.compile=reduce-overhead")
    assert "trainer.compile=reduce-overhead: give true or false" in capsys.readouterr().out

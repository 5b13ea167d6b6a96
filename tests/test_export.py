"""A trained trial as one file for torch alone."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cv_lab.trial import export
from cv_lab.trial.build import load_task
from tests.conftest import PLAIN, TINY

Train = Callable[..., Path]


def checkpoint_of(study: Path) -> Path:
    (checkpoint,) = study.glob("*/checkpoints/best.ckpt")
    return checkpoint


@pytest.mark.parametrize(
    "task",
    [
        ("task=classification",),
        ("task=semantic_segmentation", "model.width=8"),
        ("task=linear_probing", "model=timm", "model.name=test_resnet", "model.image_size=64", "weights=none"),
    ],
    ids=lambda task: task[0],
)
def test_the_file_gives_the_trials_own_probabilities(train: Train, tmp_path: Path, task: tuple[str, ...]) -> None:
    checkpoint = checkpoint_of(train(*task, *TINY, *PLAIN, f"cache_dir={tmp_path}/cache"))
    out = tmp_path / "network.pt2"
    export.main([str(checkpoint), str(out)])
    with pytest.raises(SystemExit, match=r"network.pt2 exists already: give --force"):
        export.main([str(checkpoint), str(out)])

    extra = {"about.json": ""}
    network = torch.export.load(out, extra_files=extra).module()
    trial = load_task(checkpoint)
    about = json.loads(extra["about.json"])
    assert about == {"classes": list(trial.classes), "height": 32, "width": 32}
    for count in (1, 3):  # any number of images
        images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
        with torch.inference_mode():
            expected = trial(trial.preprocessing(images)).softmax(1)
        torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_exported_is_refused(train: Train, tmp_path: Path) -> None:
    tiny = (*TINY, "data.train_count=60", "data.test_count=4", "data.image_size=64", "model.backbone.width=8")
    checkpoint = checkpoint_of(train("task=instance_segmentation", *tiny, *PLAIN))
    out = tmp_path / "network.pt2"
    for given, to, words in (
        (checkpoint, out, "another number of objects"),
        (checkpoint, tmp_path / "network.onnx", "must be called NAME.pt2"),
        (tmp_path / "nothing.ckpt", out, "nothing.ckpt"),
    ):
        with pytest.raises(SystemExit, match=words):
            export.main([str(given), str(to)])
    assert not out.exists()

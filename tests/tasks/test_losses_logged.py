"""What tasks log of their losses."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hydra.utils import instantiate

from cv_lab.files import read_json
from cv_lab.labels import IGNORE
from cv_lab.trial.build import load_task
from tests.conftest import PLAIN, TINY, composed

Train = Callable[..., Path]


@pytest.mark.parametrize(
    "overrides",
    [
        ["label_smoothing=0.3", "augmentation=strong"],
        ["loss=weighted_cross_entropy", "label_smoothing=0.1", "precision=bf16-mixed"],
        ["task=semantic_segmentation", "model.width=4", "loss=dice_weighted_cross_entropy", "augmentation=none"],
    ],
    ids=["smoothed", "weighted", "pixels"],
)
def test_cross_entropy_is_plain_whatever_training_minimises(train: Train, overrides: list[str]) -> None:
    (folder,) = train(*TINY, *PLAIN, *overrides).iterdir()
    metrics = read_json(folder / "result.json")["metrics"]
    assert "train/cross_entropy" not in metrics
    task = load_task(folder / "checkpoints/best.ckpt")
    data = instantiate(composed(*TINY, *overrides).data, target=task.target)
    data.setup()
    data.preprocessing = task.preprocessing.over(data.mean, data.std)
    for split, dataset in (("val", data.val), ("test", data.test)):
        batch = dataset.__getitems__(list(range(len(dataset))))
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled="precision=bf16-mixed" in overrides):
            logits = task(data.preprocessing(batch["image"]))
        expected = F.cross_entropy(logits.double(), batch[task.target].long(), ignore_index=IGNORE)
        assert metrics[f"{split}/cross_entropy"] == pytest.approx(expected.item(), rel=1e-3)
        assert metrics[f"{split}/loss"] != pytest.approx(expected.item(), rel=1e-3)

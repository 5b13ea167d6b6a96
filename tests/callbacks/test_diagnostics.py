"""Each finding is provoked by a real small training, and a healthy one has none."""

import csv
import logging
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from pytorch_lightning import Trainer
from torch import nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from cv_lab.callbacks.class_shares import ClassShares
from cv_lab.callbacks.diagnostics import Diagnostics, findings_of, remedies_in_use
from cv_lab.callbacks.history import EpochHistory
from cv_lab.callbacks.timing import Timing
from cv_lab.data.base import ImageData, Split
from cv_lab.data.in_memory import InMemoryImages
from cv_lab.study import diagnosis
from cv_lab.tasks.classification import Classification
from cv_lab.tasks.semantic_segmentation import SemanticSegmentation
from cv_lab.training.losses import CrossEntropy


class Greys(ImageData):
    """Grey images of 8 x 8 pixels in two classes.

    Args:
        learnable: whether brightness tells the class, of the image or of the pixel; else classes are drawn blindly.
        share: of the second class.
        count: images of each split.
        batch_size: 4 by default, so that an epoch has 32 steps.
    """

    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    targets = ("label", "mask")

    def __init__(self, learnable: bool = True, share: float = 0.5, count: int = 128, batch_size: int = 4) -> None:
        super().__init__(batch_size=batch_size, validation="test")
        self.learnable, self.share, self.count = learnable, share, count

    def load(self, split: Split) -> InMemoryImages:
        random = torch.Generator().manual_seed(int(split == "train"))
        pixels = torch.rand(self.count, 8, 8, generator=random) < self.share
        labels = torch.rand(self.count, generator=random) < self.share
        shown = pixels if self.target == "mask" else labels[:, None, None].expand_as(pixels)
        noise = torch.rand(self.count, 8, 8, generator=random)
        grey = (shown * 100 + noise * 100 if self.learnable else noise * 255).to(torch.uint8)
        masks = pixels.to(torch.uint8) if self.target == "mask" else None
        return InMemoryImages(
            grey[:, None].expand(-1, 3, -1, -1).clone(), labels.long(), ("dark", "bright"), masks=masks
        )


def classifier(num_classes: int, width: int = 16) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, width), nn.ReLU(), nn.Linear(width, num_classes))


def segmenter(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, num_classes, 1))


def rising(optimizer: Optimizer, total_steps: int) -> LRScheduler:
    return LambdaLR(optimizer, lambda step: 1.0 + step**2)


def train(kind: type[Any], data: Greys, epochs: int, tmp_path: Path, **options: Any) -> dict[str, dict[str, Any]]:
    """The findings of a training, by kind."""
    torch.manual_seed(0)
    options = {"optimizer": partial(Adam, lr=1e-2), "model": segmenter, "loss": CrossEntropy()} | options
    if kind is Classification and options["model"] is segmenter:
        options["model"] = classifier
    task = kind(classes=("dark", "bright"), **options)
    data.target = kind.target
    timing = Timing()
    history = EpochHistory(tmp_path / "metrics.csv", timing)
    diagnostics = Diagnostics(history)
    Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[timing, history, diagnostics],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    ).fit(task, data)
    return {finding["kind"]: finding for finding in diagnostics.findings}


@pytest.mark.parametrize("kind", [Classification, SemanticSegmentation])
def test_a_healthy_training_has_no_finding(kind: type[Any], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "cv_lab"):
        assert train(kind, Greys(), 8, tmp_path) == {}
    assert not caplog.records


def test_segmentation_that_predicts_one_class_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "cv_lab"):
        found = train(SemanticSegmentation, Greys(learnable=False, share=0.2), 3, tmp_path)
    message = found["collapse"]["message"]
    assert found["collapse"]["recovered"] is None
    assert "of all pixels are predicted as dark" in message
    assert "80." in message  # of the truth
    assert "loss=weighted_cross_entropy" in message
    assert "learning rate" in message
    assert len([record for record in caplog.records if "collapsed" in record.message]) == 1  # not in every epoch


def test_messages_have_the_figures_of_the_last_epoch(tmp_path: Path) -> None:
    found = train(Classification, Greys(learnable=False), 12, tmp_path, model=partial(classifier, width=128))
    last = list(csv.DictReader((tmp_path / "metrics.csv").open()))[-1]
    assert found["overfitting"]["epoch"] < 12
    assert f" to {float(last['val/loss']):.3g} (" in found["overfitting"]["message"]


def test_classification_that_predicts_one_class_is_named(tmp_path: Path) -> None:
    found = train(Classification, Greys(learnable=False, share=0.1), 4, tmp_path, optimizer=partial(SGD, lr=0.05))
    assert "of all images are predicted as dark" in found["collapse"]["message"]


def test_chance_level_is_named(tmp_path: Path) -> None:
    found = train(Classification, Greys(learnable=False), 2, tmp_path)
    assert "no better than chance" in found["chance_level"]["message"]


def test_an_exploding_loss_is_named(tmp_path: Path) -> None:
    found = train(Classification, Greys(learnable=False), 2, tmp_path, optimizer=partial(Adam, lr=1.0))
    assert found["exploding_loss"]["epoch"] == 1
    assert "ten times lower" in found["exploding_loss"]["message"]


def test_a_diverging_loss_is_named(tmp_path: Path) -> None:
    options = {"optimizer": partial(Adam, lr=1e-3), "scheduler": rising}
    found = train(Classification, Greys(learnable=False), 6, tmp_path, **options)
    assert "the training loss diverges" in found["diverging_loss"]["message"]


def test_dead_learning_is_named(tmp_path: Path) -> None:
    found = train(Classification, Greys(), 3, tmp_path, optimizer=partial(SGD, lr=0.0))
    assert found["dead_learning"]["epoch"] == 3
    assert "does not learn" in found["dead_learning"]["message"]


def test_overfitting_is_named(tmp_path: Path) -> None:
    model = partial(classifier, width=128)
    found = train(Classification, Greys(learnable=False), 12, tmp_path, model=model)
    assert "the validation loss rose" in found["overfitting"]["message"]


def test_a_recovery_is_noted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "cv_lab"):
        found = train(SemanticSegmentation, Greys(share=0.1), 20, tmp_path, optimizer=partial(Adam, lr=5e-4))
    assert found["collapse"]["recovered"] > found["collapse"]["epoch"]
    assert "recovered from collapse" in caplog.text


def test_a_network_that_has_hardly_trained_is_not_judged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "cv_lab"):  # 4 steps an epoch, 20 in all
        found = train(SemanticSegmentation, Greys(learnable=False, share=0.2, batch_size=32), 5, tmp_path)
    assert found == {}
    assert not caplog.records


def test_a_loss_that_explodes_is_named_at_once(tmp_path: Path) -> None:
    data = Greys(learnable=False, batch_size=32)
    assert "exploding_loss" in train(Classification, data, 1, tmp_path, optimizer=partial(Adam, lr=10.0))


def test_what_is_in_use_already_is_not_recommended() -> None:
    config = OmegaConf.create(
        {
            "scheduler": {},
            "trainer": {"gradient_clip_val": 1.0},
            "optimizer": {"weight_decay": 0.1},
            "label_smoothing": 0.0,
        }
    )
    choices = {"loss": "dice_weighted_cross_entropy", "scheduler": "cosine", "augmentation": "strong"}
    in_use = remedies_in_use(config, choices)
    collapsed = np.array([[80, 0], [20, 0]])
    message = diagnosis.collapse(collapsed, ("a", "b"), "pixels", in_use)
    assert message is not None
    assert message.endswith("Try the focal loss (loss=focal) or another learning rate, usually a lower one")
    rows = [{"epoch": i + 1, "train/loss": 1 - i / 10, "val/loss": 1 + i / 10, "val/f1": 0.5} for i in range(5)]
    message = diagnosis.overfitting(rows, "val/f1", in_use)
    assert message is not None
    assert message.endswith("Try label smoothing (label_smoothing=0.1), fewer epochs or a smaller network")
    rows = [{"epoch": i + 1, "train/loss": 1.0 + i} for i in range(3)]
    message = diagnosis.diverging_loss(rows, in_use)
    assert message is not None
    assert message.endswith("Try a lower learning rate")


# The rules themselves.


def test_networks_are_judged_after_100_steps_or_at_the_end_of_a_shorter_training() -> None:
    assert not diagnosis.had_time_to_learn(99, planned=1000)
    assert diagnosis.had_time_to_learn(100, planned=1000)
    assert not diagnosis.had_time_to_learn(20, planned=40)
    assert diagnosis.had_time_to_learn(40, planned=40)
    assert not diagnosis.had_time_to_learn(10, planned=10)


def test_collapse_asks_how_often_other_classes_are_predicted_for_how_often_they_occur() -> None:
    rare = np.array([[9700, 0], [200, 100]])  # defects, 3 % of the truth, a third of them found
    assert diagnosis.collapse(rare, ("good", "defect"), "images") is None
    blind = np.array([[9700, 0], [295, 5]])
    assert diagnosis.collapse(blind, ("good", "defect"), "images") is not None
    single = np.array([[100, 0], [0, 0]])  # the truth holds no more
    assert diagnosis.collapse(single, ("good", "defect"), "images") is None
    assert diagnosis.chance_level(single, "images") is None


def test_overfitting_is_silent_while_both_losses_fall_or_one_stands() -> None:
    def rows(train: list[float], val: list[float]) -> list[dict[str, float]]:
        return [
            {"epoch": i + 1, "train/loss": t, "val/loss": v, "val/accuracy": 0.5}
            for i, (t, v) in enumerate(zip(train, val, strict=True))
        ]

    falling = [1.0, 0.8, 0.6, 0.4, 0.2]
    assert diagnosis.overfitting(rows(falling, falling), "val/accuracy") is None
    assert diagnosis.overfitting(rows(falling, [1.0, 0.9, 0.9, 0.92, 0.93]), "val/accuracy") is None
    assert diagnosis.overfitting(rows([0.5] * 5, [1.0, 1.2, 1.4, 1.6, 1.8]), "val/accuracy") is None
    assert diagnosis.overfitting(rows(falling, [1.0, 1.2, 1.4, 1.6, 1.8]), "val/accuracy") is not None


def test_a_loss_without_validation_is_no_overfitting(tmp_path: Path) -> None:
    assert diagnosis.overfitting([{"epoch": 1, "train/loss": 1.0}], "val/accuracy") is None


def test_a_longer_training_judges_the_epochs_that_it_continues_by_its_own_length() -> None:
    epochs = [{"step": 20 * n, "messages": {"dead_learning": f"after {n}"}} for n in (1, 2)]
    (found,) = findings_of(epochs, planned_steps=40)  # a short training is judged at its end
    assert found == {"kind": "dead_learning", "epoch": 2, "message": "after 2", "recovered": None}
    assert findings_of(epochs, planned_steps=200) == []


def test_names_in_brackets_are_no_markup_in_the_table_of_shares(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = torch.tensor([0, 1]).byte().expand(1, 2, 2)
    images = InMemoryImages(torch.zeros(1, 3, 2, 2).byte(), torch.zeros(1).long(), ("[red]", "[/x]"), masks=masks)
    trainer = SimpleNamespace(is_global_zero=True, datamodule=SimpleNamespace(train=images))
    task = SimpleNamespace(modules=lambda: [], target="mask", classes=images.classes)
    ClassShares(tmp_path).setup(trainer, task, "fit")  # type: ignore[arg-type]
    printed = capsys.readouterr().out
    assert "[red]" in printed
    assert "[/x]" in printed

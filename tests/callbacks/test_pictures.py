"""When pictures are drawn, how often, and what becomes of a drawing that fails."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cv_lab.callbacks.pictures.classification import ClassificationPictures
from tests.conftest import TINY

Train = Callable[..., Path]
TENSORBOARD = (*TINY, "logger=tensorboard")


class Drawings:
    """Spy on the galleries that are drawn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fail: bool = False) -> None:
        self.threads: list[threading.Thread] = []
        draw = ClassificationPictures.gallery

        def spy(pictures: ClassificationPictures, task: Any, samples: Sequence[Any]) -> Image.Image:
            self.threads.append(threading.current_thread())
            if fail:
                raise RuntimeError("out of ink")
            return draw(pictures, task, samples)

        monkeypatch.setattr(ClassificationPictures, "gallery", spy)


def images(folder: Path, tag: str) -> list[Any]:
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    return events.Images(tag)


def test_the_same_pixels_are_drawn_once_and_not_by_the_training(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    drawings = Drawings(monkeypatch)
    (folder,) = train(*TENSORBOARD).iterdir()
    assert len(drawings.threads) == 2  # the sample once, and the worst test images
    assert drawings.threads[0] is not threading.main_thread()
    (last,), (best,) = images(folder, "predictions"), images(folder, "predictions_of_best")
    file = (folder / "predictions/gallery.png").read_bytes()
    assert last.encoded_image_string == best.encoded_image_string == file
    with Image.open(folder / "predictions/gallery.png") as picture:
        assert (best.width, best.height) == picture.size


@pytest.mark.parametrize("stop", [(), ("callbacks=[default,early_stopping]", "callbacks.early_stopping.patience=1")])
def test_the_last_epoch_is_shown_however_short_epochs_are(
    train: Train, monkeypatch: pytest.MonkeyPatch, stop: tuple[str, ...]
) -> None:
    monkeypatch.setattr("cv_lab.callbacks.pictures.base.MIN_TIME_BETWEEN", 1e9)
    (folder,) = train(*TENSORBOARD, "epochs=4", "lr=0", *stop).iterdir()
    rows = (folder / "metrics.csv").read_text().splitlines()
    shown = [image.step for image in images(folder, "predictions")]
    step = rows[0].split(",").index("step")
    assert [float(row.split(",")[step]) for row in (rows[1], rows[-1])] == shown


def test_a_drawing_that_fails_fails_the_trial(
    train: Train, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Drawings(monkeypatch, fail=True)
    with pytest.raises(SystemExit):
        train(*TENSORBOARD)
    assert "out of ink" in capsys.readouterr().out
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pictures")]

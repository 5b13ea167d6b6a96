"""What the pictures of all tasks share: a fixed sample of images, when it is drawn, and where it goes."""

import pickle
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pytorch_lightning import Callback, LightningModule, Trainer

from cv_lab.callbacks.evidence import worst_first
from cv_lab.data.base import ImageData
from cv_lab.data.splits import balanced_subset
from cv_lab.files import write_json
from cv_lab.pictures.artifacts import Png, encode, save_png
from cv_lab.pictures.tensorboard import add_image, final_step
from cv_lab.training.evidence import Arrays

MIN_TIME_BETWEEN = 10  # minimum time between drawings, as a multiple of the time that the last one took
WORST = 16  # test images in a picture of the worst
Sample = dict[str, Any]


class Pictures(Callback):
    """Show a fixed sample of validation images in TensorBoard during training, and keep that of the best checkpoint.

    The network predicts where Lightning calls. Drawing, encoding and writing are left to a thread of their own, for
    which the trial waits after the test. A short epoch is passed over if the sample would take more than a tenth of
    the time, but the last epoch is always shown. The folder holds ``gallery_last_epoch.png`` during the training, and
    of the best checkpoint ``gallery.png`` after the test, with what :meth:`finish` writes, and ``worst.png``, the test
    images that the network is most wrong about, with the names of their files. If both galleries show the same, the
    former is removed.

    Args:
        folder: where the pictures go.
        count: images in the sample, drawn in balance over the classes.
    """

    def __init__(self, folder: str, count: int) -> None:
        self.folder = Path(folder)
        self.count = count
        self.next_look, self.shown_step = 0.0, -1
        self.last: tuple[bytes, Png] | None = None
        self.worker: ThreadPoolExecutor | None = None
        self.work: list[Future[None]] = []
        self.ready: list[tuple[str, Png, int]] = []  # for TensorBoard: tag, picture, step

    @abstractmethod
    def look(self, task: Any, data: ImageData, images: Any, index: NDArray[np.integer]) -> list[Sample]:
        """Let the network predict for the samples of `images`, a split of `data`, at `index`.

        Returns:
            one a sample, of arrays and plain values only, with "index".
        """

    @abstractmethod
    def gallery(self, task: Any, samples: Sequence[Sample]) -> Image.Image:
        """Draw samples; called in the thread."""

    @abstractmethod
    def finish(self, task: Any, samples: Sequence[Sample], figures: Any) -> dict[str, Image.Image]:
        """Write what else belongs into the folder; called in the thread.

        Returns:
            pictures by name, to be kept and to be shown.
        """

    @abstractmethod
    def figures(self, trainer: Trainer, task: Any) -> Any:
        """Figures of the test that :meth:`finish` gets; all processes compute them."""

    def extremes(self, arrays: Arrays) -> dict[str, NDArray[np.integer]]:
        """Which test images are shown beside the sample, by the name of their picture: the worst ones.

        Args:
            arrays: of the task's :meth:`~cv_lab.tasks.base.Task.evidence`.
        """
        return {"worst": arrays["index"][worst_first(arrays)[:WORST]]}

    def on_validation_epoch_end(self, trainer: Trainer, task: LightningModule) -> None:
        self._log(trainer)
        if trainer.is_global_zero and not self._is_busy() and time.perf_counter() >= self.next_look:
            self._show(trainer, task)

    def on_train_end(self, trainer: Trainer, task: LightningModule) -> None:
        if trainer.is_global_zero and self.shown_step != trainer.lightning_module.global_step:
            task.eval()
            self._show(trainer, task)
            task.train()

    def on_test_epoch_end(self, trainer: Trainer, task: LightningModule) -> None:
        figures, arrays = self.figures(trainer, task), task.evidence()  # type: ignore[operator]  # of all processes
        if not trainer.is_global_zero:
            return
        samples, step = self._sample(trainer, task), final_step(task)
        extremes = self._extremes(trainer, task, arrays)

        def work() -> None:
            last = self.last and self.last[1]
            picture = self._drawn(task, samples)
            self._keep("gallery", "predictions_of_best", picture, step)
            if picture is last:  # the best epoch is the last
                (self.folder / "gallery_last_epoch.png").unlink(missing_ok=True)
            others = self.finish(task, samples, figures)
            others |= {name: self.gallery(task, some) for name, some in extremes.items() if some}
            for name, other in others.items():
                self._keep(name, name, encode(other), step)

        self._later(work)

    def teardown(self, trainer: Trainer, task: LightningModule, stage: str) -> None:
        if stage == "test":
            self._end()
        for work in self.work:
            if work.done():
                work.result()  # raises what went wrong in the thread
        self._log(trainer)

    def on_exception(self, trainer: Trainer, task: LightningModule, exception: BaseException) -> None:
        self._end(cancel=True)

    def _show(self, trainer: Trainer, task: LightningModule) -> None:
        start = time.perf_counter()
        samples, step = self._sample(trainer, task), trainer.lightning_module.global_step
        self.shown_step = step

        def work() -> None:
            self._keep("gallery_last_epoch", "predictions", self._drawn(task, samples), step)
            self.next_look = start + MIN_TIME_BETWEEN * (time.perf_counter() - start)

        self._later(work)

    def _sample(self, trainer: Trainer, task: LightningModule) -> list[Sample]:
        data: ImageData = trainer.datamodule  # type: ignore[attr-defined]
        return self.look(task, data, data.val, sample_of(data, self.count))

    def _extremes(self, trainer: Trainer, task: LightningModule, arrays: Arrays) -> dict[str, list[Sample]]:
        """Test images with the names of their files, where they have any."""
        data: ImageData = trainer.datamodule  # type: ignore[attr-defined]
        sets, files = data.test_sets(), data.files_of("test")
        ends = np.cumsum([len(images) for images in sets])

        def sample(index: int) -> Sample:
            number = int(np.searchsorted(ends, index, "right"))
            place = index - (ends[number - 1] if number else 0)
            (one,) = self.look(task, data, sets[number], np.array([place]))
            return one | {"index": index, "file": Path(files[index]).name if files else f"number {index}"}

        return {name: [sample(i) for i in index.tolist()] for name, index in self.extremes(arrays).items()}

    def _drawn(self, task: LightningModule, samples: Sequence[Sample]) -> Png:
        """The gallery of samples, drawn once where they are those of the last gallery."""
        key = pickle.dumps(samples)
        if self.last is None or self.last[0] != key:
            self.last = key, encode(self.gallery(task, samples))
        return self.last[1]

    def _keep(self, name: str, tag: str, png: Png, step: int) -> None:
        save_png(png, self.folder / f"{name}.png")
        self.ready.append((tag, png, step))

    def _log(self, trainer: Trainer) -> None:
        """Hand to TensorBoard what is drawn; here and not in the thread, since Lightning may close its file."""
        while self.ready:
            add_image(trainer, *self.ready.pop(0))

    def _later(self, work: Callable[[], None]) -> None:
        self.worker = self.worker or ThreadPoolExecutor(1, "pictures")
        self.work.append(self.worker.submit(work))

    def _is_busy(self) -> bool:
        return bool(self.work) and not self.work[-1].done()

    def _end(self, cancel: bool = False) -> None:
        if self.worker is not None:
            self.worker.shutdown(cancel_futures=cancel)
            self.worker = None


def sample_of(data: ImageData, count: int) -> NDArray[np.integer]:
    """Indices of `count` validation images, the same for every call, in balance over the classes."""
    return balanced_subset(data.val.labels.numpy(), min(count, len(data.val)), seed=0)


def save_samples(folder: Path, samples: Sequence[Sample]) -> None:
    """Write the "image" of each sample, uint8 (H, W, 3), to ``images/N.png``, and the rest to ``samples.json``."""
    for number, sample in enumerate(samples):
        save_png(Image.fromarray(sample["image"]), folder / "images" / f"{number}.png")
    write_json(folder / "samples.json", [{k: v for k, v in sample.items() if k != "image"} for sample in samples])

"""A trained trial as one file that runs without the lab.

    cv-lab export studies/NAME/TRIAL/checkpoints/best.ckpt network.pt2
    cv-lab export studies/NAME/TRIAL/checkpoints/best.ckpt network.onnx

    images = torch.zeros(8, 3, 32, 32, dtype=torch.uint8)  # RGB, of the size that the command prints
    probabilities = torch.export.load("network.pt2").module()(images)
    (probabilities,) = onnxruntime.InferenceSession("network.onnx").run(None, {"images": images.numpy()})

Normalisation and scaling are inside. A classifier gives (N, K) probabilities, which sum to 1; a multi-label classifier
gives (N, K) probabilities, one of each label by itself; a segmenter gives (N, K, H, W). Mask R-CNN, in ONNX alone,
takes one image and gives boxes (M, 4), x and y of two corners, labels (M,), scores (M,) and masks (M, S, S), the
probability of the object in each cell of a grid over its box. In the file, too, are as JSON the names of the classes,
and how a photograph becomes such an image:

    extra = {"about.json": ""}
    torch.export.load("network.pt2", extra_files=extra)
    onnxruntime.InferenceSession("network.onnx").get_modelmeta().custom_metadata_map["about.json"]

The file is run over the test set, and is not kept if a metric differs by more than 1e-4 from the checkpoint's. The test
set is that of the trial, whose folder holds the checkpoint; data=NAME names another, as for cv-lab evaluate.
"""

import argparse
import copy
import io
import json
import math
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from cv_lab.data.base import ImageData
from cv_lab.files import replacing
from cv_lab.tasks.base import Exported, Task
from cv_lab.trial.build import load_task
from cv_lab.trial.evaluate import build_data, compose_config, data_of
from cv_lab.trial.predict import add_loading

TOLERANCE = 1e-4  # by which a metric of the test may differ
ABOUT = "about.json"
OPSET = 17  # of ONNX for traced networks; 16 is the first whose RoIAlign computes what torchvision's does
BATCH = 32  # images, of which the speed is measured beside that of one
SECONDS = 1.0  # for which each speed is measured
Run = Callable[[Tensor], Any]  # maps uint8 images (N, 3, H, W) to what the task predicts for them


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; `argv` are its arguments, by default those of the process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path, help="file to write, NAME.pt2 or NAME.onnx")
    parser.add_argument("data", nargs="*", metavar="KEY=VALUE", help="data=NAME, data.*: another test set")
    parser.add_argument("--untested", action="store_true", help="do not run the file over the test set")
    parser.add_argument("--force", action="store_true", help="replace a file that exists")
    add_loading(parser)
    options = parser.parse_intermixed_args(argv)
    try:
        export(
            options.checkpoint,
            options.out,
            options.force,
            options.trust,
            options.weights,
            options.data,
            not options.untested,
        )
    except (FileNotFoundError, NotImplementedError, ValueError) as error:
        sys.exit(f"error: {error}")


def export(
    checkpoint: Path,
    out: Path,
    force: bool = False,
    trusted: Sequence[str] = (),
    weights: Path | None = None,
    overrides: Sequence[str] = (),
    tested: bool = True,
) -> None:
    """Write the task of `checkpoint` to `out`, and print how fast the file is.

    Args:
        checkpoint: of a trial.
        out: file to write, NAME.pt2 or NAME.onnx.
        force: replace a file that exists.
        trusted: see :func:`~cv_lab.trial.build.load_task`.
        weights: see :func:`~cv_lab.trial.build.load_task`.
        overrides: of the config, which name the data that the file is tested on; none test it on those of the trial.
        tested: run the file over the test set.

    Raises:
        FileNotFoundError: if there is no checkpoint, or no test set.
        NotImplementedError: if the task does not say what it predicts.
        ValueError: if the task's predictions cannot be exported so, `out` has another suffix or exists, a package is
            missing, or a metric of the file differs from that of the checkpoint.
    """
    if out.suffix not in WRITERS:
        raise ValueError(f"{out} must be called NAME.pt2, for torch alone, or NAME.onnx")
    if out.exists() and not force:
        raise ValueError(f"{out} exists already: give --force to replace it, or another name")
    task = load_task(checkpoint, trusted, weights)
    data = test_data(task, checkpoint, overrides) if tested else None
    exported = task.exported()
    exported.module.requires_grad_(False)
    height, width = exported.example.shape[2:]
    about = {"task": type(task).__name__, "classes": task.classes, "height": height, "width": width}
    about |= {"outputs": exported.outputs, "preprocessing": task.describe_fitted()}
    content, run = WRITERS[out.suffix](exported, json.dumps(about))
    with replacing(out) as temporary:
        temporary.write_bytes(content)
        if data is not None:
            compare(metrics_of(task, data, _by_task(task)), metrics_of(task, data, run), out)
    classes = "1 class" if len(task.classes) == 1 else f"{len(task.classes)} classes"
    print(f"{out}: {classes}, images of {height} x {width} pixels, {len(content) / 1e6:.3g} MB")
    if data is not None:
        print(f"every metric of the {len(data.test)} test images is that of the checkpoint, to {TOLERANCE:g}")
    latency = seconds_of(run, torch.zeros(1, 3, height, width, dtype=torch.uint8))
    words = f"{1000 * latency:.3g} ms for one image"
    if exported.batches:
        batch = seconds_of(run, torch.zeros(BATCH, 3, height, width, dtype=torch.uint8))
        words += f", {BATCH / batch:.3g} images/s in batches of {BATCH}"
    threads = torch.get_num_threads()
    print(f"{words}, on {threads} {'thread' if threads == 1 else 'threads'} of the processor")


def test_data(task: Task, checkpoint: Path, overrides: Sequence[str]) -> ImageData:
    """The data that `overrides` name; without any, those of the trial whose folder holds `checkpoint`.

    Raises:
        FileNotFoundError: if there is no such folder, or the data are not where they were.
    """
    if overrides:
        return build_data(task, compose_config(task, overrides), overrides)
    config = Path(checkpoint).absolute().parents[1] / ".hydra/config.yaml"
    remedy = "name a data set (data=NAME data.root=...), or give --untested"
    if not config.is_file():
        raise FileNotFoundError(f"{checkpoint} lies in no trial's folder, which tells the test set: {remedy}")
    composed = OmegaConf.load(config)
    assert isinstance(composed, DictConfig)
    try:
        return data_of(task, composed)
    except (FileNotFoundError, ValueError) as error:
        raise FileNotFoundError(f"the test set of the trial cannot be read, {error}: {remedy}") from error


def metrics_of(task: Task, data: ImageData, run: Run) -> dict[str, float]:
    """The metrics of ``data.test`` for what `run` predicts."""
    meter = copy.deepcopy(task)
    meter.model = Predicted(task, run)
    meter.on_test_epoch_start()
    with torch.inference_mode():
        for batch in data.test_dataloader():
            if "mask" in batch:
                batch["mask"] = batch["mask"].long()
            meter.step("test", batch)
        scalars = meter.summarise(meter.split_metrics("test"))
    return {name: float(value) for name, value in scalars.items()}


class Predicted(nn.Module):
    """Stand for a task's network where images are uint8 and `run` predicts."""

    def __init__(self, task: Task, run: Run) -> None:
        super().__init__()
        self.run, self.output_of = run, task.output_of
        self.parts = getattr(task.model, "parts", ())

    def forward(self, images: Tensor) -> Any:
        return self.output_of(self.run(images))

    def losses_and_detections(self, images: Tensor, targets: Any) -> tuple[dict[str, Tensor], Any]:
        """As :class:`~cv_lab.models.mask_rcnn.InstanceSegmenter` has it; a file gives no losses."""
        return dict.fromkeys(self.parts, torch.zeros(())), self(images)


def compare(expected: dict[str, float], found: dict[str, float], out: Path) -> None:
    """Refuse a file whose metrics differ from the `expected` ones.

    Raises:
        ValueError: names those that differ.
    """
    moved = [
        f"{name} is {found[name]:.6g} instead of {value:.6g}"
        for name, value in expected.items()
        if not (abs(found[name] - value) <= TOLERANCE or (math.isnan(value) and math.isnan(found[name])))
    ]
    if moved:
        raise ValueError(f"{out} is not kept, since its figures of the test set differ: {', '.join(moved)}")


def seconds_of(run: Run, images: Tensor) -> float:
    """The median time that `run` takes for `images`."""
    run(images)  # the first time allocates
    times: list[float] = []
    while not times or sum(times) < SECONDS:
        start = time.perf_counter()
        run(images)
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def _by_task(task: Task) -> Run:
    return lambda images: task.predict(task.preprocessing(images))


def _pt2(exported: Exported, about: str) -> tuple[bytes, Run]:
    if not exported.batches:
        raise ValueError(
            "Mask R-CNN finds another number of objects in each image, which torch.export cannot follow: give NAME.onnx"
        )
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(exported.module, (exported.example,), dynamic_shapes=shapes)
    content = io.BytesIO()  # torch refuses the name of a temporary file
    torch.export.save(program, content, extra_files={ABOUT: about})
    content.seek(0)
    return content.getvalue(), torch.export.load(content).module()


def _onnx(exported: Exported, about: str) -> tuple[bytes, Run]:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  # torch's exporter needs it
    except ModuleNotFoundError as error:
        raise ValueError(f"NAME.onnx needs the package {error.name}: pip install 'cv-lab[onnx]'") from error
    names: dict[str, Any] = {"input_names": ["images"], "output_names": list(exported.outputs)}
    with warnings.catch_warnings(action="ignore"), torch.no_grad():
        if exported.batches:
            shapes = ({0: torch.export.Dim.DYNAMIC},)
            program = torch.onnx.export(
                exported.module, (exported.example,), dynamic_shapes=shapes, dynamo=True, verbose=False, **names
            )
            assert program is not None
            model = program.model_proto
        else:  # torch.export cannot follow numbers of objects, but the tracer can
            content = io.BytesIO()
            axes = {name: {0: "objects"} for name in exported.outputs}
            torch.onnx.export(
                exported.module,
                (exported.example,),
                content,  # type: ignore[arg-type]
                dynamo=False,
                dynamic_axes=axes,
                opset_version=OPSET,
                **names,
            )
            model = onnx.load_from_string(content.getvalue())
    model.metadata_props.add(key=ABOUT, value=about)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # it warns of shapes that depend on the number of objects
    whole = model.SerializeToString()
    session = onnxruntime.InferenceSession(whole, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Any:
        parts = [images] if exported.batches else images.split(1)
        outputs = [list(map(torch.from_numpy, session.run(None, {"images": part.numpy()}))) for part in parts]
        return outputs[0][0] if exported.batches else [dict(zip(exported.outputs, o, strict=True)) for o in outputs]

    return whole, run


WRITERS = {".pt2": _pt2, ".onnx": _onnx}


if __name__ == "__main__":
    main()

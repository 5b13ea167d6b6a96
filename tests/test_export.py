"""A trained trial as one file for torch alone, or for ONNX's runtimes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import nn

from cv_lab.data.preprocess import Preprocessing
from cv_lab.tasks.classification import Classification
from cv_lab.tasks.semantic_segmentation import SemanticSegmentation
from cv_lab.trial import export
from cv_lab.trial.build import load_task
from tests.conftest import PLAIN, TINY

Train = Callable[..., Path]
ABOUT = "about.json"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "SECONDS", 0.0)


def checkpoint_of(study: Path) -> Path:
    (checkpoint,) = study.glob("*/checkpoints/best.ckpt")
    return checkpoint


def session_of(file: Path) -> Any:
    return pytest.importorskip("onnxruntime").InferenceSession(file.read_bytes())


def need_onnx() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'cv-lab[onnx]'")


@pytest.mark.parametrize(
    "task",
    [
        ("task=classification",),
        ("task=semantic_segmentation", "model.width=8"),
        ("task=linear_probing", "model=timm", "model.name=test_resnet", "model.image_size=64", "weights=none"),
    ],
    ids=lambda task: task[0],
)
@pytest.mark.parametrize("kind", ["pt2", "onnx"])
def test_the_file_gives_the_trials_own_probabilities(
    train: Train, tmp_path: Path, task: tuple[str, ...], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if kind == "onnx":
        need_onnx()
    checkpoint = checkpoint_of(train(*task, *TINY, *PLAIN, f"cache_dir={tmp_path}/cache"))
    out = tmp_path / f"network.{kind}"
    export.main([str(checkpoint), str(out)])
    told = capsys.readouterr().out
    assert "every metric of the 40 test images is that of the checkpoint, to 0.0001" in told
    assert "ms for one image" in told
    assert "images/s in batches of 32" in told
    with pytest.raises(SystemExit, match=r"network.* exists already: give --force"):
        export.main([str(checkpoint), str(out)])

    if kind == "pt2":
        extra = {ABOUT: ""}
        network = torch.export.load(out, extra_files=extra).module()
        about = json.loads(extra[ABOUT])
    else:
        session = session_of(out)
        about = json.loads(session.get_modelmeta().custom_metadata_map[ABOUT])

        def network(images: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])

    trial = load_task(checkpoint)
    assert (about["classes"], about["height"], about["width"]) == (list(trial.classes), 32, 32)
    assert about["preprocessing"]["inside"] == json.loads(json.dumps(trial.preprocessing.describe()))
    for count in (1, 3):  # any number of images
        images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
        with torch.inference_mode():
            expected = trial(trial.preprocessing(images)).softmax(1)
        torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-5)


def detector(train: Train) -> Path:
    tiny = (*TINY, "data.train_count=60", "data.test_count=4", "data.image_size=64", "model.backbone.width=8")
    return checkpoint_of(train("task=instance_segmentation", *tiny, *PLAIN))


def test_mask_rcnn_becomes_onnx(train: Train, tmp_path: Path) -> None:
    need_onnx()
    checkpoint, out = detector(train), tmp_path / "network.onnx"
    export.main([str(checkpoint), str(out)])
    session, task = session_of(out), load_task(checkpoint)
    for seed in (0, 1):  # other numbers of objects than those of the example, of which there are none
        images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
        with torch.inference_mode():
            (expected,) = task.predict(task.preprocessing(images))
        found = session.run(None, {"images": images.numpy()})
        assert len(expected["scores"]) > 0
        assert [one.name for one in session.get_outputs()] == list(expected)
        for value, name in zip(found, expected, strict=True):
            np.testing.assert_allclose(value, expected[name], atol=1e-4)


def test_what_cannot_be_exported_is_refused(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, out = detector(train), tmp_path / "network.pt2"
    (tmp_path / "checkpoints").mkdir()
    moved = tmp_path / "checkpoints/best.ckpt"
    moved.write_bytes(checkpoint.read_bytes())
    for given, to, words in (
        (checkpoint, out, "another number of objects"),
        (checkpoint, tmp_path / "network.trt", r"must be called NAME.pt2, for torch alone, or NAME.onnx"),
        (tmp_path / "nothing.ckpt", out, "nothing.ckpt"),
        (moved, out, "lies in no trial's folder, which tells the test set: name a data set"),
    ):
        with pytest.raises(SystemExit, match=words):
            export.main([str(given), str(to)])
    assert not out.exists()


def test_a_file_with_other_figures_is_not_kept(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = checkpoint_of(train(*TINY, *PLAIN, "model=small_cnn", "model.width=4"))
    out = tmp_path / "network.pt2"

    def slightly_wrong(exported: Any, about: str) -> tuple[bytes, export.Run]:
        content, run = export._pt2(exported, about)
        return content, lambda images: run(images) ** 1.01

    monkeypatch.setitem(export.WRITERS, ".pt2", slightly_wrong)
    with pytest.raises(SystemExit, match=r"network.pt2 is not kept, since .* cross_entropy is"):
        export.main([str(checkpoint), str(out)])
    assert list(tmp_path.glob("*network*")) == []
    export.main([str(checkpoint), str(out), "--untested"])
    assert out.exists()


def test_metrics_are_compared() -> None:
    nan = float("nan")
    export.compare({"a": 0.5, "b": nan}, {"a": 0.50009, "b": nan}, Path("x.pt2"))
    for found in ({"a": 0.5002, "b": nan}, {"a": nan, "b": nan}, {"a": 0.5, "b": 1.0}):
        with pytest.raises(ValueError, match=r"x\.pt2 is not kept"):
            export.compare({"a": 0.5, "b": nan}, found, Path("x.pt2"))


def by_hand(file: Path, about: dict[str, Any]) -> np.ndarray:
    """Read a photograph as the description in the file says."""
    image = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
    (height, width), (w, h) = about["size"], image.size
    if about["fit"] == "stretch":
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    if about["fit"] == "crop":
        scale = min(h / height, w / width)
        left, top = (w - scale * width) / 2, (h - scale * height) / 2
        box = (left, top, left + scale * width, top + scale * height)
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, box=box))
    scale = min(height / h, width / w)
    whole = np.asarray(image.resize((round(w * scale), round(h * scale)), Image.Resampling.BILINEAR))
    frame = np.full((height, width, 3), about["ground"], np.uint8)
    centred = about["place"] == "centre"
    top, left = ((a - b) // 2 if centred else 0 for a, b in zip((height, width), whole.shape, strict=False))
    frame[top : top + whole.shape[0], left : left + whole.shape[1]] = whole
    return frame


@pytest.mark.parametrize(
    ("kind", "fit"),
    [
        *((Classification, fit) for fit in ("crop", "pad", "stretch")),
        *((SemanticSegmentation, fit) for fit in ("pad", "stretch")),
    ],
)
def test_the_description_says_how_predict_reads_a_photograph(kind: Any, fit: Any, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 100, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    Image.fromarray(pixels).save(tmp_path / "photo.png", exif=exif)
    task = kind.__new__(kind)
    nn.Module.__init__(task)
    task.image_size, task.fit, task.preprocessing = (24, 40), fit, Preprocessing((0.1, 0.5, 0.9), (0.2, 0.2, 0.2))
    about = task.describe_fitted()
    read = task.open_photo(tmp_path / "photo.png").pixels
    # Scaled before it is turned or after it, which rounds differently.
    np.testing.assert_allclose(by_hand(tmp_path / "photo.png", about).astype(int), read, atol=1)
    images = torch.randint(0, 256, (2, 3, 24, 40), dtype=torch.uint8)
    inside = about["inside"]
    mean, std = (torch.tensor(inside[name])[:, None, None] for name in ("mean", "std"))
    torch.testing.assert_close(task.preprocessing(images), (images / 255 - mean) / std)

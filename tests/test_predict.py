"""A trained trial says something of any image."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from pycocotools.coco import COCO

from cv_lab.tasks.base import Photo
from cv_lab.tasks.classification import Classification
from cv_lab.tasks.semantic_segmentation import classes_at
from cv_lab.trial import predict
from tests.conftest import PLAIN, TINY, train_in

Train = Callable[..., Path]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A photograph of another size and shape than what is trained on."""
    path = tmp_path / "photos" / "holiday.jpg"
    path.parent.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (60, 100, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def run(study: Path, photo: Path, *options: str) -> Path:
    (checkpoint,) = study.glob("*/checkpoints/best.ckpt")
    out = study / "out"
    predict.main([str(checkpoint), str(photo.parent), "--out", str(out), "--score", "0", *options])
    return out


def test_a_classifier_gives_probabilities(classifier: Path, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run(classifier.parents[2], photo)
    (row,) = csv.DictReader((out / "predictions.csv").open())
    assert row.pop("image") == str(photo)
    predicted = row.pop("predicted")
    probabilities = {k.removeprefix("probability/"): float(v) for k, v in row.items() if k.startswith("probability/")}
    assert len(probabilities) == 8
    assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
    ranked = sorted(probabilities, key=probabilities.__getitem__, reverse=True)
    assert [row[f"top_{place}"] for place in range(1, 6)] == ranked[:5]
    assert [float(row[f"top_{place}_probability"]) for place in range(1, 6)] == [probabilities[k] for k in ranked[:5]]
    assert predicted == ranked[0]
    assert "top_6" not in row
    assert f"holiday.jpg: {predicted} (" in capsys.readouterr().out


def test_a_segmenter_gives_masks(segmenter: Path, photo: Path) -> None:
    out = run(segmenter, photo)
    mask = np.asarray(Image.open(out / "holiday_mask.png"))
    assert mask.shape == (60, 100)  # its own size, though the network sees it in 32 x 32
    assert mask.max() < 9
    assert (out / "holiday.png").exists()


def test_mask_rcnn_gives_objects_at_the_images_own_size(train: Train, photo: Path) -> None:
    light = ("model.channels=8", "model.backbone.width=8", "model.box_channels=16", "model.mask_layers=[8]")
    out = run(train("task=instance_segmentation", *TINY, "data.image_size=64", *light, *PLAIN), photo, "--yolo")
    found = json.loads((out / "detections.json").read_text())
    assert all(one["segmentation"]["size"] == [60, 100] for one in found)
    assert {one["image_id"] for one in found} <= {1}
    truth = COCO()
    truth.dataset = {"images": [{"id": 1}], "categories": [], "annotations": []}
    truth.createIndex()
    assert not found or len(truth.loadRes(str(out / "detections.json")).getAnnIds()) == len(found)
    assert Image.open(out / "holiday.png").size == (480, 285)

    lines = [line.split() for line in (out / "holiday.txt").read_text().splitlines()]
    names = (out / "classes.txt").read_text().splitlines()
    assert [names[int(number)] for number, *_ in lines] == [one["class"] for one in found]
    assert all(0 <= float(value) <= 1 for _, *values in lines for value in values)


@pytest.mark.parametrize(("images", "words"), [("nowhere.jpg", "there is no"), ("empty", "holds no images")])
def test_images_that_are_not_there(tmp_path: Path, images: str, words: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match=words):
        predict.main(["any.ckpt", str(tmp_path / images)])


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a tiny classifier."""
    study = train_in(tmp_path_factory.mktemp("trial"), *TINY, *PLAIN, "model=small_cnn", "model.width=4")
    (checkpoint,) = study.glob("*/checkpoints/best.ckpt")
    return checkpoint


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study of a tiny segmenter."""
    return train_in(tmp_path_factory.mktemp("trial"), "task=semantic_segmentation", "model.width=8", *TINY, *PLAIN)


def save(path: Path, size: tuple[int, int] = (40, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 30)).save(path)
    return path


def table_of(out: Path) -> list[str]:
    return [row["image"] for row in csv.DictReader((out / "predictions.csv").open())]


def test_a_bad_file_does_not_stop_the_rest(classifier: Path, tmp_path: Path) -> None:
    good = [save(tmp_path / "in" / name) for name in ("a.png", "deep/er/c.jpg")]
    for name, content in (("b.png", b"no image"), ("d.png", good[0].read_bytes()[:60]), ("e.jpg", b"")):
        (tmp_path / "in" / name).write_bytes(content)
    (tmp_path / "in/notes.txt").write_text("not an image, and not asked for")
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as error:
        predict.main([str(classifier), str(tmp_path / "in"), "--out", str(out)])
    told = str(error.value.code)  # a text as exit code is printed, and the code is 1
    assert told.startswith("3 of 5 images could not be read:")
    assert all(name in told for name in ("b.png", "d.png", "e.jpg"))
    assert table_of(out) == [str(path) for path in good]


def test_nothing_is_overwritten_silently(classifier: Path, tmp_path: Path) -> None:
    image, out = save(tmp_path / "a.png"), tmp_path / "out"
    arguments = [str(classifier), str(image), "--out", str(out)]
    predict.main(arguments)
    (out / "predictions.csv").write_text("mine")
    with pytest.raises(SystemExit, match=r"predictions.csv exist already: give --force"):
        predict.main(arguments)
    with pytest.raises(SystemExit, match="--yolo are for objects, but the checkpoint's Classification finds none"):
        predict.main([*arguments, "--force", "--yolo"])
    with pytest.raises(SystemExit, match="tiles are for masks and objects"):
        predict.main([*arguments, "--force", "--tile", "512"])
    assert (out / "predictions.csv").read_text() == "mine"
    predict.main([*arguments, "--force"])
    assert table_of(out) == [str(image)]


def test_equal_names_in_different_folders_stay_apart(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a/x.png", "b/x.png", "b/y.png", "b/y.jpg")]
    assert predict.names_of(files) == ["a/x", "b/x", "b/y.png", "b/y.jpg"]
    assert predict.names_of(files[2:]) == ["y.png", "y.jpg"]
    assert predict.names_of(files[:1]) == ["x"]


def test_a_file_that_is_given_twice_is_predicted_once_and_results_are_no_images(tmp_path: Path) -> None:
    image = save(tmp_path / "a.png")
    save(tmp_path / "out/a.png")
    save(tmp_path / "._b.png")
    assert predict.images_in([tmp_path, image], tmp_path / "out") == [image]


def test_results_do_not_replace_images_or_each_other(segmenter: Path, tmp_path: Path) -> None:
    (checkpoint,) = segmenter.glob("*/checkpoints/best.ckpt")
    images = [str(save(tmp_path / "in" / name)) for name in ("a.png", "a_mask.png")]
    with pytest.raises(SystemExit, match=r"a.png and .*a_mask.png would both be written to .*a_mask.png"):
        predict.main([str(checkpoint), *images, "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="is one of the images"):
        predict.main([str(checkpoint), images[0], "--out", str(tmp_path / "in"), "--force"])
    predict.main([str(checkpoint), images[0], "--out", str(tmp_path / "out")])
    predict.main([str(checkpoint), images[0], "--out", str(tmp_path / "tiles"), "--tile", "16"])
    with Image.open(tmp_path / "tiles/a_mask.png") as mask:
        assert (mask.mode, mask.size) == ("P", (40, 30))
    with Image.open(tmp_path / "out/a_mask.png") as mask, Image.open(tmp_path / "out/a_overlay.png") as overlay:
        assert (mask.mode, mask.size, overlay.mode, overlay.size) == ("P", (40, 30), "RGB", (40, 30))
        assert mask.getpalette()


def test_classes_at_another_size() -> None:
    """Each pixel takes the class whose interpolated probability is highest; ties take the first class."""
    left = torch.tensor([[0.9, 0.1], [0.9, 0.1]])
    probabilities = torch.stack([left, 1 - left])
    assert classes_at(probabilities, (2, 2)).tolist() == [[0, 1], [0, 1]]
    scaled = F.interpolate(probabilities[None], (5, 8), mode="bilinear", align_corners=False)[0].argmax(0)
    assert classes_at(probabilities, (5, 8)).tolist() == scaled.tolist()


def test_few_classes_are_all_ranked_and_may_be_called_like_a_column(tmp_path: Path) -> None:
    task = SimpleNamespace(classes=("image", "cat"))
    photo = Photo(tmp_path / "a.png", np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2, 3), np.uint8), (2, 2))
    rows, words = Classification.write(task, photo, torch.tensor([[0.25, 0.75]]), tmp_path, "a", 0.5)  # type: ignore[arg-type]
    ranks = {"top_1": "cat", "top_1_probability": 0.75, "top_2": "image", "top_2_probability": 0.25}
    probabilities = {"probability/image": 0.25, "probability/cat": 0.75}
    assert rows == [{"image": str(tmp_path / "a.png"), "predicted": "cat", **ranks, **probabilities}]
    assert words == "cat (75.0 %)"


def test_ids_are_those_of_the_coco_data_set(tmp_path: Path) -> None:
    images = [{"id": 40, "file_name": "a/x.jpg"}, {"id": 9, "file_name": "b/x.jpg"}]
    categories = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]
    path = tmp_path / "test.json"
    path.write_text(json.dumps({"images": images, "categories": categories}))
    files = [tmp_path / "b/x.jpg", tmp_path / "a/x.jpg"]
    assert predict.coco_ids(files, ("cat", "dog"), path) == ({files[0]: 9, files[1]: 40}, {"dog": 7, "cat": 3})
    assert predict.coco_ids(files, ("cat", "dog"), None) == ({files[0]: 1, files[1]: 2}, {"cat": 1, "dog": 2})
    for some, classes, words in (
        ([tmp_path / "x.jpg"], ("cat",), "names 0 images"),
        (files, ("cat", "cow"), "has no category cow"),
    ):
        with pytest.raises(ValueError, match=words):
            predict.coco_ids(some, classes, path)
    path.write_text("[]")
    with pytest.raises(ValueError, match="is no COCO data set"):
        predict.coco_ids(files, ("cat",), path)

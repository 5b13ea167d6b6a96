"""Photographs that every epoch decodes from their packed files, and how photographs fit."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cv_lab
from cv_lab.data.augment import Augmentation, RandomHorizontalFlip, RandomResizedCrop
from cv_lab.data.folder import ImageFolder
from cv_lab.data.mask_folder import MaskFolder
from cv_lab.data.preprocess import Preprocessing
from tests.conftest import PLAIN


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Eight photographs of 60 x 40 pixels, of which a half is red and the other one green or blue."""
    root = tmp_path / "photos"
    for number in range(8):
        name = ("green", "blue")[number % 2]
        pixels = np.zeros((40, 60, 3), np.uint8)
        pixels[:, :30, 0] = 200 + number
        pixels[:, 30:, 1 + number % 2] = 200
        (root / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def test_packed_files_give_the_pixels_of_the_other_store(root: Path, tmp_path: Path) -> None:
    for fit in ("crop", "pad", "stretch"):
        stores = [
            ImageFolder(str(root), image_size=[20, 24], fit=fit, store=store, cache_dir=str(tmp_path / "cache"))
            for store in ("pixels", "jpeg", "jpeg")
        ]
        pixels, packed, again = (data.load("train").images for data in stores)
        assert pixels.shape == packed.shape == (8, 3, 20, 24)
        assert torch.equal(packed[:], pixels[:])
        assert torch.equal(again[torch.tensor([3, 1])], pixels[torch.tensor([3, 1])])
        assert torch.equal(packed[2], pixels[2])
        assert torch.equal(packed[:, :, 4], pixels[:, :, 4])
    (file,) = (tmp_path / "cache/packed").glob("*.safetensors")
    assert sum(path.stat().st_size for path in root.rglob("*.png")) < file.stat().st_size < 30_000


def test_fits_show_what_they_promise(root: Path) -> None:
    def shown(fit: str, size: int | list[int]) -> torch.Tensor:
        return ImageFolder(str(root), image_size=size, fit=fit).load("train").images[:][-1].permute(1, 2, 0)

    crop, pad, stretch = (shown(fit, 40) for fit in ("crop", "pad", "stretch"))
    red, green = torch.tensor([206, 0, 0]), torch.tensor([0, 200, 0])
    assert (crop[:, 18] == red).all()  # ten columns are cut off on either side
    assert (crop[:, 21] == green).all()
    assert (pad[7:33, 0] == red).all()  # 27 of 40 rows are filled
    assert (pad[:6] == torch.tensor([124, 116, 104])).all()  # ImageNet's mean
    assert (pad[34:] == torch.tensor([124, 116, 104])).all()
    assert (stretch[:, :19] == red).all()
    assert (stretch[:, 21:] == green).all()
    assert torch.equal(shown("crop", [40, 60]), shown("pad", [40, 60]))  # of the photographs' own proportions


def test_what_is_cut_off_is_told(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    ImageFolder(str(root), image_size=8).setup()
    assert caplog.text.count("largest central square of each photograph is used, which leaves out 33 %") == 1
    assert "data.fit=pad keeps all of it" in caplog.text
    caplog.clear()
    ImageFolder(str(root), image_size=[8, 12]).setup()
    assert "data.fit" not in caplog.text


def test_unknown_fits_and_stores_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"data\.fit=cut is not possible with ImageFolder: give crop or pad or stretch"
    ):
        ImageFolder("x", fit="cut")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"data\.fit=crop is not possible with MaskFolder: give pad or stretch"):
        MaskFolder("x", fit="crop")
    with pytest.raises(ValueError, match=r"data\.store=jpeg is not possible with MaskFolder: give pixels"):
        MaskFolder("x", store="jpeg")
    with pytest.raises(ValueError, match=r"at most 1 and 1, or take data\.store=pixels"):
        ImageFolder("x", store="jpeg", augmentation=Augmentation(crop=RandomResizedCrop(scale=(0.5, 1.5))))


def test_packed_files_are_cropped_anew_in_training_alone(root: Path) -> None:
    crop = RandomResizedCrop(scale=(0.1, 0.2))
    data = ImageFolder(str(root), image_size=20, store="jpeg", batch_size=2, augmentation=Augmentation(crop=crop))
    data.setup()
    assert data.train is not None
    torch.manual_seed(0)
    first, second = ([batch["image"] for batch in data.train_dataloader()] for _ in range(2))
    assert first[0].shape == (2, 3, 20, 20)
    assert not torch.equal(first[0], second[0])
    torch.manual_seed(0)
    assert torch.equal(next(iter(data.train_dataloader()))["image"], first[0])  # drawn by the seed alone
    red = [(image[0] > 100).float().mean() for image in torch.cat(first)]
    assert min(red) == 0 or max(red) == 1  # windows of a tenth of the area may lie in one half
    assert torch.equal(data.train.images[:], data.train.images[:])
    assert crop({"image": first[0], "cropped": True})["image"] is first[0]


def test_windows_have_the_distribution_that_torchvision_draws(root: Path) -> None:
    """Of photographs of 60 x 40 pixels, a window of all their area and of aspect 1.5 is the whole photograph."""
    crop = RandomResizedCrop(scale=(1.0, 1.0), ratio=(1.5, 1.5))
    data = ImageFolder(str(root), image_size=20, fit="stretch", store="jpeg", augmentation=Augmentation(crop=crop))
    data.setup()
    assert torch.equal(data.training_samples().images[:], data.train.images[:])  # type: ignore[union-attr]


def test_damaged_files_are_dropped_from_the_pack(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = (root / "blue/1.png").read_bytes()
    (root / "blue/1.png").write_bytes(whole[: len(whole) // 2])
    (root / "blue/empty.jpg").touch()
    images = ImageFolder(str(root), image_size=20, store="jpeg").load("train")
    assert len(images) == 7
    assert images.images[:].shape == (7, 3, 20, 20)
    assert "dropped 2 damaged image files" in caplog.text


def test_the_store_is_larger_than_the_network_s_input_for_resized_crops(root: Path) -> None:
    def stored(augmentation: Augmentation | None, **options: object) -> ImageFolder:
        data = ImageFolder(str(root), augmentation=augmentation, **options)  # type: ignore[arg-type]
        data.setup()
        return data

    crop = Augmentation(crop=RandomResizedCrop())
    data = stored(crop, preprocessing=Preprocessing(size=40))
    assert data.train is not None
    assert data.train.images.shape[2:] == (46, 46)  # 1.15 times 40
    assert data.normalise(data.train.images[:2]).shape[2:] == (40, 40)
    batch = crop({"image": data.train.images[:2], "side": 40})
    assert batch["image"].shape[2:] == (40, 40)  # scaled once
    assert stored(crop, image_size=40).preprocessing.size == 40
    assert stored(crop, image_size=64, preprocessing=Preprocessing(size=40)).test.images.shape[2:] == (64, 64)
    for unchanged in (None, Augmentation(flip=RandomHorizontalFlip())):
        data = stored(unchanged, image_size=40)
        assert data.test.images.shape[2:] == (40, 40)
        assert data.preprocessing.size is None


def test_copies_are_named(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "green/copy.png").write_bytes((root / "green/0.png").read_bytes())
    (root / "blue/wrong.png").write_bytes((root / "green/0.png").read_bytes())
    (root.parent / "train").mkdir()
    for name in ("green", "blue"):
        (root / name).rename(root.parent / "train" / name)
    (root.parent / "test/blue").mkdir(parents=True)
    (root.parent / "test/blue/a.png").write_bytes((root.parent / "train/blue/1.png").read_bytes())
    data = ImageFolder(str(root.parent), image_size=8)
    data.setup()
    told = {problem["kind"]: problem["count"] for problem in data.problems}
    assert told == {
        "images are copies of others with another label": 2,  # the first of the three is blue/wrong.png
        "images are copies of images of another set": 1,
    }
    assert any(f"{Path('test/blue/a.png')}" in row["example"] for row in data.problem_files)


def test_masks_may_be_stretched(tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    mask = np.zeros((20, 40), np.uint8)
    mask[:, 20:] = 1
    for number in range(4):
        Image.fromarray(mask * 200).convert("RGB").save(tmp_path / f"images/{number}.png")
        Image.fromarray(mask).save(tmp_path / f"masks/{number}.png")
    stretched = MaskFolder(str(tmp_path), ["a", "b"], image_size=16, fit="stretch").load("train")
    assert stretched.masks is not None
    assert stretched.masks[0].tolist() == [[0] * 8 + [1] * 8] * 16
    assert (stretched.images[0][0] > 100).int().tolist() == stretched.masks[0].tolist()
    padded = MaskFolder(str(tmp_path), ["a", "b"], image_size=16).load("train")
    assert padded.masks is not None
    assert (padded.masks[0][8:] == 255).all()


@pytest.mark.parametrize("fit", ["pad", "stretch"])
def test_predictions_fit_photographs_as_training_did(
    train: Callable[..., Path], root: Path, tmp_path: Path, fit: str
) -> None:
    (root / "green/broken.png").write_bytes(b"")
    study = train(
        *PLAIN,
        *("model=small_cnn", "data=folder", f"data.root={root}", "data.image_size=[16,24]", f"data.fit={fit}"),
        *("data.store=jpeg", "batch_size=2", "epochs=1", f"cache_dir={tmp_path / 'cache'}"),
    )
    (checkpoint,) = study.glob("*/checkpoints/best.ckpt")
    predictor = cv_lab.load(checkpoint)
    assert predictor.task.image_size == (16, 24)
    assert predictor.task.fit == fit
    file = root / "blue/1.png"
    photo = predictor.task.open_photo(file)
    wanted = ImageFolder(str(root), image_size=[16, 24], fit=fit).load("train").images[0]  # type: ignore[arg-type]
    assert torch.equal(torch.from_numpy(photo.pixels.copy()).permute(2, 0, 1), wanted)
    by_file, by_pixels = predictor(file), predictor(np.asarray(Image.open(file)))
    assert np.array_equal(by_file, by_pixels)
    (table,) = study.glob("*/problems.csv")
    rows = list(csv.DictReader(table.open()))
    assert [row["what"] for row in rows] == ["dropped"]
    assert "broken.png" in rows[0]["example"]

"""Batched augmentation draws what torchvision draws, for each sample by itself."""

from typing import Any

import pytest
import torch
from torchvision.transforms import v2

from cv_lab.data.augment import (
    AlternatingFlip,
    ColourJitter,
    Mix,
    PerImage,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Transform,
)
from tests.pretended_device import pretended_device


def coordinates(count: int, size: int = 8) -> torch.Tensor:
    """`count` images, uint8 (count, 3, size, size), whose pixels tell their row and column, counted from 1."""
    rows, columns = torch.meshgrid(torch.arange(1, size + 1), torch.arange(1, size + 1), indexing="ij")
    return torch.stack([rows, columns, rows * 0]).to(torch.uint8).expand(count, 3, size, size).clone()


def offsets(images: torch.Tensor, padding: int) -> torch.Tensor:
    """The corner (y, x) of each crop, int (N, 2), read from a pixel that no crop can lose."""
    centre = images.shape[-1] // 2
    return images[:, :2, centre, centre].long() - 1 - centre + padding


def test_crop_offsets_have_torchvisions_distribution() -> None:
    torch.manual_seed(0)
    count, size, padding = 20_000, 8, 1
    ours = offsets(RandomCrop(padding / size)({"image": coordinates(count)})["image"], padding)
    reference = v2.RandomCrop(size, padding=padding)
    theirs = offsets(torch.stack([reference(image) for image in coordinates(4_000)]), padding)
    for corners in (ours, theirs):
        shares = torch.bincount(corners[:, 0] * 3 + corners[:, 1], minlength=9) / len(corners)
        assert shares.shape == (9,)
        assert torch.all((shares - 1 / 9).abs() < 0.02)  # even over all nine corners


def test_a_crop_is_the_window_that_torchvision_cuts() -> None:
    torch.manual_seed(0)
    images = torch.randint(0, 256, (50, 3, 16, 16), dtype=torch.uint8)
    cropped = RandomCrop(0.25)({"image": images})["image"]
    padded = v2.functional.pad(images, [4, 4, 4, 4])
    for crop, image in zip(cropped, padded, strict=True):
        windows = [image[:, y : y + 16, x : x + 16] for y in range(9) for x in range(9)]
        assert any(torch.equal(crop, window) for window in windows)


def test_reflected_crops_are_windows_of_torchvisions_padding() -> None:
    torch.manual_seed(0)
    before = blocks(50, 16)
    after = RandomCrop(0.25, "reflect")(before)
    images, masks = (v2.functional.pad(before[name], [4] * 4, padding_mode="reflect") for name in ("image", "mask"))
    for crop, label, image, mask in zip(after["image"], after["mask"], images, masks, strict=True):
        corners = [(y, x) for y in range(9) for x in range(9)]
        assert any(
            torch.equal(crop, image[:, y : y + 16, x : x + 16]) and torch.equal(label, mask[y : y + 16, x : x + 16])
            for y, x in corners
        )
    with pytest.raises(ValueError, match="parts of objects twice"):
        RandomCrop(0.25, "reflect")({"image": before["image"], "masks": before["mask"][:, None]})
    with pytest.raises(ValueError, match="padding_mode=edge"):
        RandomCrop(0.25, "edge")


def test_alternating_flips_show_both_versions_in_any_two_epochs() -> None:
    images, index = coordinates(10_000), torch.arange(10_000)

    def mirrored(flip: AlternatingFlip, epoch: int, order: torch.Tensor = index) -> torch.Tensor:
        batch = {"image": images[order], "mask": images[order, 1], "index": order, "epoch": epoch}
        flipped = flip(batch)
        assert torch.equal(flipped["mask"], flipped["image"][:, 1])
        found = flipped["image"][:, 1, 0, 0] == images.shape[-1]
        assert torch.equal(flipped["image"][found], images[:1].flip(-1).expand(int(found.sum()), -1, -1, -1))
        return found

    first = mirrored(AlternatingFlip(1), 0)
    assert torch.equal(mirrored(AlternatingFlip(1), 1), ~first)
    assert torch.equal(mirrored(AlternatingFlip(1), 2), first)
    order = torch.randperm(10_000)
    assert torch.equal(mirrored(AlternatingFlip(1), 0, order), first[order])  # whatever batch an image comes in
    # Independent of the place in the set and of the seed: within four deviations of a fair coin.
    for coin in (first, first[1:] ^ first[:-1], first[10:] ^ first[:-10], first ^ mirrored(AlternatingFlip(2), 0)):
        assert abs(coin.float().mean() - 0.5) < 4 * 0.5 / 100


def test_flips_are_even_and_differ_within_a_batch() -> None:
    torch.manual_seed(0)
    images = coordinates(10_000)
    flipped = RandomHorizontalFlip()({"image": images})["image"]
    mirrored = flipped[:, 1, 0, 0] == images.shape[-1]
    assert 0.48 < mirrored.float().mean() < 0.52
    assert torch.equal(flipped[mirrored], images[mirrored].flip(-1))
    assert torch.equal(flipped[~mirrored], images[~mirrored])


def test_per_image_draws_for_every_image() -> None:
    torch.manual_seed(0)
    batch = {"image": coordinates(64)}
    changed = PerImage(v2.RandomHorizontalFlip())(batch)["image"]
    assert len(changed.flatten(1).unique(dim=0)) == 2


def test_mix_keeps_label_mass_and_class() -> None:
    torch.manual_seed(0)
    mix = Mix()
    labels = torch.arange(10) % 5
    for _ in range(10):
        batch = mix({"image": coordinates(10), "label": labels, "num_classes": 5})
        assert torch.allclose(batch["soft_label"].sum(1), torch.ones(10))
        assert torch.equal(batch["label"], labels)
    several = mix({"image": coordinates(10), "label": torch.eye(5)[labels]})  # probabilities need no count
    assert several["soft_label"].shape == (10, 5)


# Images together with masks.


def blocks(count: int, size: int = 32) -> dict[str, torch.Tensor]:
    """Images of flat blocks whose red value, ten times the class, tells the mask; no class is 0."""
    torch.manual_seed(0)
    mask = torch.randint(1, 20, (count, size // 8, size // 8)).repeat_interleave(8, 1).repeat_interleave(8, 2)
    image = torch.stack([mask * 10, mask * 0, mask * 0], 1).to(torch.uint8)
    return {"image": image, "mask": mask.to(torch.uint8), "label": torch.zeros(count, dtype=torch.long)}


@pytest.mark.parametrize(
    "transform",
    [
        RandomCrop(0.25),
        RandomCrop(0.25, "reflect"),
        RandomHorizontalFlip(),
        RandomResizedCrop((0.3, 1.0)),
        RandomResizedCrop((0.5, 2.0)),
        PerImage(v2.RandomAffine(10, (0.2, 0.2))),
    ],
    ids=lambda transform: type(transform).__name__,
)
def test_image_and_mask_move_together_and_masks_are_not_interpolated(transform: Transform) -> None:
    before = blocks(64)
    after = transform(before)
    image, mask = after["image"], after["mask"]
    assert mask.dtype == torch.uint8
    assert set(mask.unique().tolist()) <= {*range(1, 20), 255, 0}  # no new class arises between two
    # Within blocks, where the bilinear image is exact, pixel and label still belong together.
    same = (mask[:, 1:-1, 1:-1] == mask[:, :-2, 1:-1]) & (mask[:, 1:-1, 1:-1] == mask[:, 2:, 1:-1])
    same &= (mask[:, 1:-1, 1:-1] == mask[:, 1:-1, :-2]) & (mask[:, 1:-1, 1:-1] == mask[:, 1:-1, 2:])
    inside = same & (mask[:, 1:-1, 1:-1] != 255)
    red = image[:, 0, 1:-1, 1:-1].float()[inside] / 10
    assert inside.float().mean() > 0.2
    assert (red - mask[:, 1:-1, 1:-1][inside]).abs().quantile(0.98) < 0.05
    assert not torch.equal(mask, before["mask"])
    assert len({m.numpy().tobytes() for m in mask}) > 60 or isinstance(transform, RandomHorizontalFlip)


def kolmogorov_smirnov(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest distance between the distribution functions of two samples."""
    values = torch.cat([a, b]).sort().values
    shares = [torch.searchsorted(x.sort().values, values, right=True) / len(x) for x in (a, b)]
    return (shares[0] - shares[1]).abs().max().item()


@pytest.mark.parametrize(
    ("size", "scale", "ratio"),
    [
        ((48, 48), (0.4, 1.0), (3 / 4, 4 / 3)),
        ((32, 32), (0.08, 1.0), (0.5, 2.0)),
        ((240, 320), (0.3, 1.0), (3 / 4, 4 / 3)),
        ((40, 60), (0.8, 1.0), (1.2, 2.0)),  # few windows fit
        ((64, 64), (0.9, 1.0), (2.0, 3.0)),  # none does
        ((64, 64), (0.9, 1.0), (0.3, 0.4)),
    ],
)
def test_resized_crops_have_torchvisions_distribution(
    size: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float]
) -> None:
    torch.manual_seed(0)
    count, (height, width) = 5_000, size
    (top, left), (tall, wide) = RandomResizedCrop(scale, ratio).windows(count, height, width, torch.device("cpu"))
    relative = (ratio[0] * width / height, ratio[1] * width / height)  # of the image's aspect, which is 1 for squares
    reference, image = v2.RandomResizedCrop(8, scale, relative), torch.empty(3, height, width)
    drawn = [reference.make_params([image]) for _ in range(count)]
    theirs = {key: torch.tensor([float(window[key]) for window in drawn]) for key in drawn[0]}
    pairs = {
        "area": (tall * wide, theirs["height"] * theirs["width"]),
        "aspect": (wide / tall, theirs["width"] / theirs["height"]),
        "top": (top, theirs["top"]),
        "left": (left, theirs["left"]),
        "bottom": (top + tall, theirs["top"] + theirs["height"]),
    }
    for name, (ours, expected) in pairs.items():
        assert kolmogorov_smirnov(ours, expected) < 1.95 * (2 / count) ** 0.5, name  # p > 0.001
        assert ours.mean().item() == pytest.approx(expected.mean().item(), rel=0.02, abs=0.4), name
    assert (wide == width).float().mean().item() == pytest.approx(
        (theirs["width"] == width).float().mean().item(), abs=0.015
    )


@pytest.mark.parametrize("size", [1.0, 0.8, 0.37, 1.5])
def test_resized_crops_are_the_pixels_that_torchvision_gives(size: float) -> None:
    images = torch.randint(0, 256, (32, 3, 40, 56), dtype=torch.uint8)
    crop = RandomResizedCrop((0.1, 1.0), (0.5, 2.0), size)
    torch.manual_seed(1)
    (top, left), (height, width) = crop.windows(32, 40, 56, images.device)
    torch.manual_seed(1)
    ours = crop({"image": images})["image"]
    for image, found, *window in zip(images, ours, top, left, height, width, strict=True):
        corner_and_size = [int(side) for side in window]
        expected = v2.functional.resized_crop(
            image.float(), *corner_and_size, size=[round(40 * size), round(56 * size)], antialias=True
        )
        torch.testing.assert_close(found, expected, rtol=0, atol=0.01)


def test_windows_beyond_the_image_are_anywhere_around_it() -> None:
    """Along an axis that a window exceeds, it contains the image."""
    torch.manual_seed(0)
    (top, left), (tall, wide) = RandomResizedCrop((0.5, 2.0)).windows(4_000, 40, 40, torch.device("cpu"))
    for start, length in ((top, tall), (left, wide)):
        assert length.max() <= round(2**0.5 * 40)
        beyond = length > 40
        assert 0.3 < beyond.float().mean() < 0.7
        assert torch.all((start <= 0) & (start + length >= 40) == beyond | (length == 40))
        share = (-start / (length - 40))[beyond & (length > 44)]
        assert 0.4 < share.mean() < 0.6
        assert share.min() == 0
        assert share.max() == 1


def test_a_window_of_the_whole_image_changes_nothing() -> None:
    before = blocks(4)
    after = RandomResizedCrop((1.0, 1.0), (1.0, 1.0))(before)
    assert torch.equal(after["image"], before["image"].float())
    assert torch.equal(after["mask"], before["mask"])


@pytest.mark.parametrize("size", [0.5, 1.5])
def test_resized_crops_wait_for_no_device(size: float) -> None:
    """On "meta" there are no values to wait for: whatever asks for one raises."""
    batch = {"image": torch.empty(2, 3, 16, 16, dtype=torch.uint8, device="meta")}
    batch["mask"] = batch["image"][:, 0]
    batch["masks"] = batch["image"].repeat(1, 2, 1, 1)
    after = RandomResizedCrop((0.5, 1.5), size=size)(batch)
    side = int(16 * size)
    assert {name: tuple(value.shape) for name, value in after.items()} == {
        "image": (2, 3, side, side),
        "mask": (2, side, side),
        "masks": (2, 6, side, side),
    }


def test_resized_crops_are_scaled_to_a_size_of_their_own() -> None:
    torch.manual_seed(0)
    whole = RandomResizedCrop((1.0, 1.0), (1.0, 1.0), size=0.5)(
        {"image": torch.full((2, 3, 16, 16), 7.0)} | {"mask": torch.full((2, 16, 16), 5, dtype=torch.uint8)}
    )
    assert whole["image"].shape == (2, 3, 8, 8)
    assert whole["mask"].shape == (2, 8, 8)
    assert whole["mask"].eq(5).all()


@pytest.mark.parametrize(
    "options",
    [{"scale": (1.0, 0.4)}, {"scale": (-0.1, 1.0)}, {"ratio": (4 / 3, 3 / 4)}, {"ratio": (0, 1)}, {"size": 0}],
)
def test_impossible_windows_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))}=.* of a resized crop must be"):
        RandomResizedCrop(**options)


def test_what_a_crop_shows_beyond_the_image_is_unlabelled() -> None:
    after = RandomResizedCrop((3.9, 4.0), (1.0, 1.0))(blocks(16))
    assert 0.7 < (after["mask"] == 255).float().mean() < 0.8
    assert torch.all(RandomCrop(0.5)(blocks(64))["mask"].flatten(1).eq(255).any(1).float().mean() > 0.8)


def test_colours_change_within_range_and_masks_do_not() -> None:
    before = blocks(32)
    after = ColourJitter(0.5, 0.5, 0.5)(before)
    assert torch.equal(after["mask"], before["mask"])
    assert after["image"].min() >= 0
    assert after["image"].max() <= 255
    assert len({round(value.item(), 2) for value in after["image"].mean((1, 2, 3))}) > 28
    unchanged = ColourJitter(0, 0, 0)(before)["image"]
    assert torch.allclose(unchanged, before["image"].float(), atol=1e-3)


def test_a_transform_for_images_only_refuses_masks() -> None:
    with pytest.raises(TypeError, match="Mask"):
        PerImage(v2.TrivialAugmentWide())(blocks(2))


@pytest.mark.parametrize(
    "transform",
    [RandomHorizontalFlip(), PerImage(v2.TrivialAugmentWide()), PerImage(v2.RandomAffine(10, (0.2, 0.2)))],
    ids=["flip", "TrivialAugment", "affine"],
)
def test_a_device_gives_the_cpus_images_without_a_wait(transform: Transform) -> None:
    images = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8)
    torch.manual_seed(0)
    expected = transform({"image": images})["image"]
    with pretended_device() as waits:
        moved = images.to("gpu")
        waits.clear()
        torch.manual_seed(0)
        changed = transform({"image": moved})["image"]
        assert not waits
        assert torch.equal(changed.cpu(), expected)


def test_greys_are_those_of_a_weighted_sum() -> None:
    image = torch.rand(2, 3, 5, 7) * 255
    grey = (image * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    torch.manual_seed(3)
    saturated = ColourJitter(0, 0, 0.5)({"image": image})["image"]
    factor = ((saturated - grey) / (image - grey)).flatten(1)  # one for each image
    inside = ((saturated > 0) & (saturated < 255) & ((image - grey).abs() > 10)).flatten(1)
    for row, kept in zip(factor, inside, strict=True):
        assert row[kept].std() < 1e-4

"""The procedural scenes: what they are made of, and that they are the same every time."""

from dataclasses import fields

import pytest
import torch
from torch import Tensor

from cv_lab.data.scenes import (
    CLASS_SHARES,
    CLASSES,
    MAX_OBJECTS,
    MIN_VISIBLE,
    SHAPES,
    Scenes,
    generate_scenes,
)


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return generate_scenes(1500, 32, seed=5)


def areas(scenes: Scenes) -> Tensor:
    """Visible pixels of each instance, int64 (N, MAX_OBJECTS)."""
    numbers = range(1, MAX_OBJECTS + 1)
    return torch.stack([(scenes.instances == number).sum((1, 2)) for number in numbers], 1)


def assert_equal(first: Scenes, second: Scenes) -> None:
    for field in fields(Scenes):
        assert torch.equal(getattr(first, field.name), getattr(second, field.name)), field.name


@pytest.mark.parametrize("size", [32, 57, 256])
def test_shapes_and_types(size: int) -> None:
    scenes = generate_scenes(3, size)
    expected = {
        "images": (torch.uint8, (3, 3, size, size)),
        "masks": (torch.uint8, (3, size, size)),
        "instances": (torch.uint8, (3, size, size)),
        "instance_classes": (torch.int64, (3, MAX_OBJECTS)),
        "labels": (torch.int64, (3,)),
    }
    found = {field.name: getattr(scenes, field.name) for field in fields(Scenes)}
    assert {name: (value.dtype, tuple(value.shape)) for name, value in found.items()} == expected


def test_the_same_seed_gives_the_same_scenes() -> None:
    assert_equal(generate_scenes(20, 48, seed=7), generate_scenes(20, 48, seed=7))


@pytest.mark.parametrize(("few", "many", "size"), [(10, 50, 64), (1, 5, 256), (100, 300, 32)])
def test_a_scene_does_not_depend_on_how_many_are_drawn(few: int, many: int, size: int) -> None:
    start = generate_scenes(many, size, seed=3)
    start = Scenes(*(getattr(start, field.name)[:few] for field in fields(Scenes)))
    assert_equal(start, generate_scenes(few, size, seed=3))


def test_scenes_differ_between_seeds_and_within_one() -> None:
    images = torch.cat([generate_scenes(30, 32, seed).images for seed in range(3)])
    assert len(images.flatten(1).unique(dim=0)) == 90


def test_a_larger_image_shows_the_same_scene() -> None:
    small, large = generate_scenes(40, 64, seed=2), generate_scenes(40, 128, seed=2)
    assert torch.equal(small.labels, large.labels)
    assert (small.masks == large.masks[:, ::2, ::2]).float().mean() > 0.97
    shrunk = torch.nn.functional.avg_pool2d(large.images.float(), 2)
    assert (shrunk - small.images).abs().mean() < 12  # of 255: noise and edges


def test_seven_tenths_are_background(scenes: Scenes) -> None:
    assert 0.65 < (scenes.masks == 0).float().mean() < 0.75


def test_classes_are_as_frequent_as_documented(scenes: Scenes) -> None:
    assert sum(CLASS_SHARES) == pytest.approx(1)
    assert min(CLASS_SHARES) / max(CLASS_SHARES) == pytest.approx(0.25)
    expected = torch.tensor(CLASS_SHARES)
    for found in (scenes.labels, scenes.instance_classes[scenes.instance_classes >= 0]):
        shares = found.bincount(minlength=len(CLASSES)) / len(found)
        assert (shares - expected).abs().max() < 0.035  # three standard errors of the largest share


def test_each_shape_has_the_area_of_the_unit_disk() -> None:
    grid = torch.linspace(-2, 2, 801).numpy()
    for shape in SHAPES:
        area = (shape(grid[None, :], grid[:, None]) <= 0).mean() * 16
        assert area == pytest.approx(torch.pi, rel=0.02), shape.__name__


def test_masks_are_the_classes_of_the_instances(scenes: Scenes) -> None:
    values = torch.nn.functional.pad(scenes.instance_classes + 1, (1, 0))
    masks = values.gather(1, scenes.instances.flatten(1).long()).view_as(scenes.masks)
    assert torch.equal(masks, scenes.masks.long())


def test_instances_are_numbered_without_gaps_and_seen(scenes: Scenes) -> None:
    listed = scenes.instance_classes >= 0
    counts = listed.sum(1)
    assert torch.equal(listed, torch.arange(MAX_OBJECTS) < counts[:, None])
    assert set(counts.tolist()) == {1, 2, 3, 4}
    assert (areas(scenes)[listed] >= MIN_VISIBLE * 32**2).all()
    assert (areas(scenes)[~listed] == 0).all()


def test_the_label_is_the_class_of_clearly_the_largest_object(scenes: Scenes) -> None:
    area, number = areas(scenes).sort(descending=True)
    assert torch.equal(scenes.labels, scenes.instance_classes.gather(1, number[:, :1])[:, 0])
    assert (area[:, 0] > 1.25 * area[:, 1]).all()


def test_objects_stand_out_from_the_background_whatever_their_class(scenes: Scenes) -> None:
    brightness = scenes.images.float().mean(1) / 255
    ground = brightness[scenes.masks == 0].mean()
    by_class = torch.stack([brightness[scenes.masks == k + 1].mean() for k in range(len(CLASSES))])
    assert (by_class - ground).min() > 0.2
    assert by_class.max() - by_class.min() < 0.06  # so colour tells nothing about the class


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "count=0"),
        ({"count": 1, "image_size": 31}, "image_size=31"),
        ({"count": 1, "image_size": 257}, "image_size=257"),
        ({"count": 1, "seed": -1}, "seed=-1"),
    ],
)
def test_refuses_what_it_cannot_draw(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate_scenes(**arguments)

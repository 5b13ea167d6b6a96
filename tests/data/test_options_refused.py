"""Options of data sets that cannot be meant are refused in words."""

from typing import Any

import pytest

from cv_lab.data.base import ImageData
from cv_lab.data.coco import Coco
from cv_lab.data.folder import ImageFolder
from cv_lab.data.labels_csv import LabelsCsv
from cv_lab.data.mask_folder import MaskFolder
from cv_lab.data.own import OwnData


@pytest.mark.parametrize(
    ("kind", "options", "told"),
    [
        *((ImageFolder, {"batch_size": value}, "must be a whole number") for value in (0, None, "x", [1], 1.5, True)),
        *((ImageFolder, {"seed": value}, "must be a whole number") for value in (None, "", "1", 1.5, [1])),
        *(
            (OwnData, {"val_fraction": value}, "must be a number between 0 and 1")
            for value in (None, "x", [1], {}, True)
        ),
        *(
            (ImageFolder, {"image_size": v}, "must be 1 to 16384 pixels")
            for v in (0, -1, "x", [], [1, 2, 3], 1.5, 10**30, {})
        ),
        *((MaskFolder, {"image_size": value}, "a height and a width") for value in (0, None, "x", [1.5, 2], [0, 3])),
        *((MaskFolder, {"classes": value}, "must be a list of names") for value in (3, 1.5, {"a": 1})),
        *((MaskFolder, {"values": value}, "must give the class") for value in ("x", [1], 3)),
        (ImageFolder, {"sampler": "even"}, "give shuffled or balanced"),
        (MaskFolder, {"sampler": "balanced"}, "weigh classes in the loss instead"),
        (MaskFolder, {"colours": "red"}, "must give the class of each"),
        *((LabelsCsv, {"separator": value}, "must be text") for value in ("", 3, [";"])),
    ],
)
def test_odd_values_are_refused(kind: type[ImageData], options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        kind("nowhere", **options)


@pytest.mark.parametrize("value", [0, -1, "x", [3], 2.5])
def test_odd_numbers_of_images_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"data\.train_images=.* must be a whole number"):
        Coco("a", "b", "c", "d", train_images=value)

"""The embedded data set: procedural scenes, generated in memory from a seed."""

from typing import Any

import torch.nn.functional as F

from cv_lab.data.base import ImageData, Split
from cv_lab.data.in_memory import InMemoryImages
from cv_lab.data.instances import InstanceImages, boxes_alone, from_numbered
from cv_lab.data.label_sets import LabelledImages
from cv_lab.data.scenes import CLASSES, generate_scenes

# The pictures are a function of these alone, not of the trial's seed: trials that differ in their seed see the same
# images in another split and order.
TRAIN_SEED, TEST_SEED = 1, 2


class Shapes(ImageData):
    """Scenes with up to a few textured objects.

    A scene's label is the class of its largest object, and its labels are the classes of all its objects; its mask has
    the background as class 0; its instances are the visible parts of its objects.

    Args:
        train_count: scenes to draw for training and validation.
        test_count: scenes to draw for the test.
        image_size: side in pixels.
        options: see :class:`~cv_lab.data.base.ImageData`.
    """

    mean = (0.44, 0.44, 0.44)  # of the training scenes; backgrounds are darker than objects
    std = (0.26, 0.26, 0.26)
    targets = ("label", "labels", "mask", "instances", "boxes")

    def __init__(self, train_count: int = 4000, test_count: int = 1000, image_size: int = 48, **options: Any) -> None:
        super().__init__(**options)
        self.train_count, self.test_count, self.image_size = train_count, test_count, image_size

    def load(self, split: Split) -> InMemoryImages:
        count, seed = (self.train_count, TRAIN_SEED) if split == "train" else (self.test_count, TEST_SEED)
        scenes = generate_scenes(count, self.image_size, seed)
        if self.target in ("instances", "boxes"):
            numbers, classes = scenes.instances.numpy(), scenes.instance_classes.numpy()
            objects = [from_numbered(numbers[i], classes[i][classes[i] >= 0], i) for i in range(count)]
            if self.target == "boxes":
                objects = [boxes_alone(one, (self.image_size, self.image_size)) for one in objects]
            return InstanceImages(scenes.images, objects, CLASSES)
        if self.target == "labels":
            occurs = F.one_hot(scenes.instance_classes + 1, len(CLASSES) + 1).amax(1)[:, 1:]  # -1 is no object
            return LabelledImages(scenes.images, occurs.byte(), CLASSES)
        if self.target == "mask":
            return InMemoryImages(scenes.images, scenes.labels + 1, ("background", *CLASSES), masks=scenes.masks)
        return InMemoryImages(scenes.images, scenes.labels, CLASSES)

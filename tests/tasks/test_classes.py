"""What tasks want of the number of classes."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from cv_lab.models.backbones import TimmNetwork
from cv_lab.models.segmentation import SmallUNet
from cv_lab.models.small_cnn import SmallCNN
from cv_lab.tasks.base import Task
from cv_lab.tasks.classification import Classification
from cv_lab.tasks.finetuning import FineTuning
from cv_lab.tasks.linear_probing import LinearProbing
from cv_lab.tasks.semantic_segmentation import SemanticSegmentation
from cv_lab.training.losses import CrossEntropy

MODELS: dict[type[Task], Any] = {
    Classification: SmallCNN,
    FineTuning: TimmNetwork("test_resnet"),
    LinearProbing: TimmNetwork("test_resnet"),
    SemanticSegmentation: partial(SmallUNet, width=4),
}


def build(kind: type[Task], classes: tuple[str, ...]) -> nn.Module:
    return kind(MODELS[kind], classes=classes, loss=CrossEntropy(), optimizer=partial(torch.optim.SGD, lr=0.1))  # type: ignore[call-arg]


@pytest.mark.parametrize("kind", MODELS)
def test_a_single_class_is_refused_where_classes_are_told_apart(kind: type[Task]) -> None:
    told = rf"{kind.__name__} tells classes apart and needs at least 2, but the data has 1 \(cell\): add"
    with pytest.raises(ValueError, match=told):
        build(kind, ("cell",))
    assert build(kind, ("background", "cell"))

"""What tasks of classification make of classes."""

from functools import partial
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer
from torch import nn
from torch.utils.data import DataLoader

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


def test_the_mirrored_test_is_a_figure_of_its_own() -> None:
    """Against the mean logits worked out here, beside figures that stay what they are without it."""
    torch.manual_seed(0)
    images, labels = torch.randn(12, 3, 16, 16), torch.arange(12) % 3

    def tested(flip_tta: bool) -> tuple[dict[str, float], nn.Module]:
        torch.manual_seed(1)
        task = Classification(
            SmallCNN, ("a", "b", "c"), CrossEntropy(), partial(torch.optim.SGD, lr=0.1), flip_tta=flip_tta
        )
        batches = [{"image": images[i], "label": labels[i], "index": i} for i in torch.arange(12).split(5)]
        trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
        for _ in range(2):  # the second test counts from 0 again
            trainer.test(task, DataLoader(batches, None), verbose=False)  # type: ignore[arg-type]
        return {name: value.item() for name, value in trainer.callback_metrics.items()}, task.eval()

    plain, task = tested(False)
    found, _ = tested(True)
    with torch.no_grad():
        logits = (task(images) + task(images.flip(-1))) / 2
    assert found.pop("test/accuracy_tta") == pytest.approx((logits.argmax(1) == labels).float().mean().item())
    assert found == plain


def test_the_mirrored_test_adds_logits_of_half_precision_in_full() -> None:
    """256 + 0.5 and 256 + 1 are both 256 in bfloat16."""

    class Halves(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            mirrored = images[:, 0, 0, :1] > 0
            return torch.where(mirrored, torch.tensor([0.5, 1.0]), torch.tensor([256.0, 256.0])).bfloat16()

    task = Classification(lambda num_classes: Halves(), ("a", "b"), CrossEntropy(), torch.optim.SGD, flip_tta=True)
    image = torch.zeros(1, 3, 2, 2)
    image[..., 1] = 1
    task.test_step({"image": image, "label": torch.tensor([1]), "index": torch.tensor([0])}, 0)
    assert task.split_metrics("test_tta").compute().tolist() == [[0, 0], [0, 1]]

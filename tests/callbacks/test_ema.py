"""The average of weights against one worked out by hand."""

from pathlib import Path

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from cv_lab.callbacks.ema import EMA


class Net(LightningModule):
    """One layer that trains, below one that is frozen and a buffer that counts."""

    counted: Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.frozen, self.layer = nn.Linear(4, 4).requires_grad_(False), nn.Linear(4, 1)
        self.register_buffer("counted", torch.tensor(0))
        self.seen: list[Tensor] = [self.layer.weight.detach().clone()]
        self.tested: Tensor | None = None

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.counted += 1
        return self.layer(self.frozen(batch)).square().mean()

    def on_train_batch_end(self, *args: object) -> None:
        self.seen.append(self.layer.weight.detach().clone())

    def test_step(self, batch: Tensor, batch_idx: int) -> None:
        self.tested = self.layer.weight.detach().clone()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.layer.parameters(), lr=0.1)


def test_average_of_the_steps_is_tested_and_saved(tmp_path: Path) -> None:
    net, data = Net(), DataLoader(torch.randn(12, 4), batch_size=2)
    frozen = net.frozen.weight.clone()
    saver = ModelCheckpoint(tmp_path)
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        callbacks=[EMA(decay=0.9), saver],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(net, data)
    trainer.test(net, data, ckpt_path=saver.best_model_path, verbose=False, weights_only=True)
    average = net.seen[1].double()  # the first update takes the weights as they are
    for weight in net.seen[2:]:
        average = 0.9 * average + 0.1 * weight.double()
    assert net.tested is not None
    torch.testing.assert_close(net.tested.double(), average, rtol=1e-5, atol=1e-7)
    saved = torch.load(saver.best_model_path, weights_only=True)["state_dict"]
    assert torch.equal(saved["layer.weight"], net.tested)
    assert torch.equal(saved["frozen.weight"], frozen)
    assert saved["counted"] == 12


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_bad_decay_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=f"decay={decay}"):
        EMA(decay)

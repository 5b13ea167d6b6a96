"""The average of weights against one worked out by hand."""

from pathlib import Path

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn
from torch.utils.data import DataLoader

from cv_lab.callbacks.ema import ExponentialMovingAverage, _Average


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


@pytest.mark.parametrize("warmup", [True, False])
def test_average_of_the_steps_is_tested_and_saved(warmup: bool, tmp_path: Path) -> None:
    net, data = Net(), DataLoader(torch.randn(12, 4), batch_size=2)
    frozen = net.frozen.weight.clone()
    saver = ModelCheckpoint(tmp_path)
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        callbacks=[ExponentialMovingAverage(decay=0.4, warmup=warmup), saver],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(net, data)
    trainer.test(net, data, ckpt_path=saver.best_model_path, verbose=False, weights_only=True)
    average = net.seen[1].double()  # the first update takes the weights as they are
    for n, weight in enumerate(net.seen[2:], 1):
        decay = min(0.4, (1 + n) / (10 + n)) if warmup else 0.4
        average = decay * average + (1 - decay) * weight.double()
    assert net.tested is not None
    torch.testing.assert_close(net.tested.double(), average, rtol=1e-5, atol=1e-7)
    saved = torch.load(saver.best_model_path, weights_only=True)["state_dict"]
    assert torch.equal(saved["layer.weight"], net.tested)
    assert torch.equal(saved["frozen.weight"], frozen)
    assert saved["counted"] == 12


def test_an_average_of_the_last_epochs_leaves_the_first_as_they_are(tmp_path: Path) -> None:
    def fit(net: Net, epochs: int, start: int, checkpoint: str | None = None) -> Trainer:
        trainer = Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            callbacks=[
                ExponentialMovingAverage(0.4, start_epoch=start),
                ModelCheckpoint(tmp_path / f"{start}", "{epoch}", save_top_k=-1),
            ],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(net, data, ckpt_path=checkpoint, weights_only=True)
        return trainer

    net, data = Net(), DataLoader(torch.randn(12, 4), batch_size=2)
    fit(net, 3, 1)
    saved = [torch.load(tmp_path / f"1/epoch={epoch}.ckpt", weights_only=True)["state_dict"] for epoch in range(3)]
    assert torch.equal(saved[0]["layer.weight"], net.seen[6])  # six steps an epoch
    average = net.seen[6].double()
    for n, weight in enumerate(net.seen[7:], 1):
        decay = min(0.4, (1 + n) / (10 + n))
        average = decay * average + (1 - decay) * weight.double()
    torch.testing.assert_close(saved[2]["layer.weight"].double(), average, rtol=1e-5, atol=1e-7)
    for epoch in (0, 1):  # continued before and within the average
        continued = Net()
        fit(continued, 3, 1, str(tmp_path / f"1/epoch={epoch}.ckpt"))
        assert torch.equal(continued.layer.weight, net.layer.weight)
    with pytest.raises(ValueError, match="start_epoch=3 must lie within the training: give a number from 0 to 2"):
        fit(Net(), 3, 3)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_bad_decay_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=f"decay={decay}"):
        ExponentialMovingAverage(decay)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))  # with a buffer of whole numbers


@pytest.mark.parametrize("use_buffers", [True, False])
def test_the_average_is_torchs_also_when_continued(use_buffers: bool) -> None:
    model = network()
    own = _Average(model, 0.9, False, use_buffers=use_buffers)
    torchs = AveragedModel(model, avg_fn=get_ema_avg_fn(0.9), use_buffers=use_buffers)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for step in range(8):
        if step == 4:
            state = own.state_dict()
            own = _Average(network(), 0.9, False, use_buffers=use_buffers)
            own.load_state_dict(state)
        model(torch.randn(5, 4)).square().sum().backward()
        optimizer.step()
        own.update_parameters(model)
        torchs.update_parameters(model)
        left, right = own.state_dict(), torchs.state_dict()
        assert list(left) == list(right)
        for name, value in right.items():
            if name.endswith("num_batches_tracked"):  # torch averages it and drops the fraction
                assert left[name] == step + 1
            else:
                torch.testing.assert_close(left[name], value, rtol=1e-5, atol=1e-6)

"""Weights from files."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cv_lab.models.weights import fit_state_dict, read_checkpoint, read_state_dict, start_from


def test_state_dicts_of_every_kind_are_read(tmp_path: Path) -> None:
    state = nn.Linear(3, 2).state_dict()
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "a.pt")
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    trial = {"state_dict": {f"model.{key}": value for key, value in state.items()}, "hyper_parameters": {}}
    torch.save(trial, tmp_path / "a.ckpt")
    for name in ("a.safetensors", "a.pt", "a.pth", "a.ckpt"):
        read = read_state_dict(tmp_path / name)
        assert read.keys() == state.keys()
        assert torch.equal(read["weight"], state["weight"])


class Explosive:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    explosive = Explosive(tmp_path / "exploded")
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(explosive))
    torch.save({"weight": explosive}, tmp_path / "evil.pth")
    for name in ("evil.pt", "evil.pth"):
        with pytest.raises(ValueError, match="not a checkpoint that can be loaded safely"):
            read_checkpoint(tmp_path / name)
    assert not explosive.path.exists()


def test_files_that_are_none_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.pt is not a checkpoint"):
        read_state_dict(tmp_path / "text.pt")
    with pytest.raises(FileNotFoundError, match=r"gone\.pt"):
        read_state_dict(tmp_path / "gone.pt")
    torch.save({"epoch": 3}, tmp_path / "numbers.pt")
    with pytest.raises(ValueError, match="no state dict"):
        read_state_dict(tmp_path / "numbers.pt")


def test_what_does_not_fit_is_listed_and_nothing_is_loaded() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    before = {key: value.clone() for key, value in module.state_dict().items()}
    state = {"0.weight": torch.zeros(2, 3), "0.bias": torch.zeros(5), "head.bias": torch.zeros(1)}
    with pytest.raises(ValueError, match="do not fit") as error:
        fit_state_dict(module, state, "a.pt")
    told = str(error.value)
    assert "2 missing: 1.weight, 1.bias" in told
    assert "1 unexpected: head.bias" in told
    assert "0.bias (5,) instead of (2,)" in told
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_arrays_of_jax_networks_are_refused_with_the_way_to_convert_them(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(ValueError, match=r"big_vision .*timm\.create_model\(NAME, checkpoint_path=.*weights=net"):
        read_state_dict(tmp_path / f"vit{suffix}")


@pytest.mark.parametrize("fresh", [True, False])
def test_heads_start_anew_or_from_what_fits(fresh: bool) -> None:
    module = nn.ModuleDict({"body": nn.Linear(2, 2), "head": nn.Linear(2, 3), "header": nn.Linear(2, 2)})
    before = {key: value.clone() for key, value in module.state_dict().items()}
    state = {key: torch.full_like(value, 7) for key, value in before.items()} | {"head.weight": torch.zeros(5, 2)}
    start_from(module, state, "a.pt", ["head"], fresh)
    after = module.state_dict()
    assert torch.equal(after["head.weight"], before["head.weight"])
    assert torch.equal(after["head.bias"], before["head.bias"] if fresh else state["head.bias"])
    assert all(torch.equal(after[key], state[key]) for key in state if not key.startswith("head."))
    with pytest.raises(ValueError, match=r"1 missing: body\.bias"):
        start_from(module, {k: v for k, v in state.items() if k != "body.bias"}, "a.pt", ["head"], fresh)

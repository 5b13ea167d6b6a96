"""Weights from files."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cv_lab.models.weights import fit_state_dict, read_checkpoint, read_state_dict


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
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("/tmp/cv_lab_exploded"),))


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Explosive()))
    torch.save({"weight": Explosive()}, tmp_path / "evil.pth")
    for name in ("evil.pt", "evil.pth"):
        with pytest.raises(ValueError, match="not a checkpoint that can be loaded safely"):
            read_checkpoint(tmp_path / name)
    assert not Path("/tmp/cv_lab_exploded").exists()


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

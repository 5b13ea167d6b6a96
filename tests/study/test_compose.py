"""Configs composed from copies are those that Hydra composes one by one."""

from types import SimpleNamespace
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf

from cv_lab.config import register_config
from cv_lab.study.compose import Composer
from tests.conftest import ROOT

TRIALS = [
    ["lr=0.1", "seed=2"],
    ["optimizer=sgd", "optimizer.momentum=0.5", "lr=0.1"],
    ["lr=0.3", "optimizer=adam"],
    ["+notes.a=1", "notes.a=2", "~scheduler", "++callbacks.progress=null"],
    ["~augmentation", "data=cifar10"],
    ["++model={extra:{a:1}}", "+notes.b={c:2}"],
    ["experiment=cifar100_fast", "epochs=3", "hydra.job.chdir=true"],
    ["callbacks=[default,ema]", "callbacks.ema.decay=0.5", "study='a b'"],
    ["lr=0.1", "lr=0.2"],
]


@pytest.fixture
def master() -> Any:
    register_config()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        config = loader.load_configuration(
            "train", ["seed=1", "hydra.verbose=true", "hydra.sweep.subdir=${hydra:job.num}"], RunMode.MULTIRUN
        )
        yield SimpleNamespace(config_loader=loader), config


def test_they_equal_those_of_hydra(master: Any) -> None:
    context, config = master
    composer = Composer(context, config)
    for overrides in [*TRIALS, *TRIALS]:
        expected = context.config_loader.load_sweep_config(config, overrides)
        composed = composer.compose(overrides)
        assert OmegaConf.to_yaml(composed) == OmegaConf.to_yaml(expected)
        assert OmegaConf.get_cache(composed) == OmegaConf.get_cache(expected)
        assert OmegaConf.is_struct(composed) == OmegaConf.is_struct(expected)


@pytest.mark.parametrize(
    "overrides", [["lr=abc"], ["optimizer=nothing"], ["optimizer.nothing=1"], ["lr@x=1"], ["~nothing"], ["+lr=1"]]
)
def test_what_hydra_refuses_is_refused_in_its_words(master: Any, overrides: list[str]) -> None:
    context, config = master
    with pytest.raises(HydraException) as expected:
        context.config_loader.load_sweep_config(config, overrides)
    assert isinstance(expected.value, ConfigCompositionException)
    with pytest.raises(ConfigCompositionException) as refused:
        Composer(context, config).compose(overrides)
    assert str(refused.value) == str(expected.value)

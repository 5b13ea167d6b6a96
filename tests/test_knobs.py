"""Keys without an effect are refused: unknown ones, those that hide a knob, and knobs that nothing reads."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from cv_lab.config import KEYS, register_config, trial_name
from cv_lab.knobs import PASSED_ON, check_config, similar
from cv_lab.trial.arguments import arguments_of, check_arguments
from tests.conftest import PLAIN, ROOT, TINY

CONF = ROOT / "conf"
FILES = [
    path
    for path in sorted(CONF.glob("*/[!_]*.yaml"))
    if path.parent.name != "hydra" and path.parent.name not in ("experiment", "debug")
]
SEGMENTATION = "task=semantic_segmentation"


def check(*overrides: str, conf: Path = CONF) -> DictConfig:
    """Compose and check a config as a trial does."""
    register_config()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        where = f"hydra.searchpath=[file://{conf}]"
        config = compose(
            "train", [where, *overrides, "trial_dir=/tmp/never-written", "study=s"], return_hydra_config=True
        )
        HydraConfig.instance().set_config(config)
        check_config(config, config.hydra)
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    plain: Any = OmegaConf.to_container(own, resolve=True)
    check_arguments(plain)
    return own


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_key_of_every_option_is_an_argument(path: Path) -> None:
    group, option = path.parent.name, path.stem
    check(f"{group}=[{option}]" if group in ("callbacks", "logger") else f"{group}={option}")


@pytest.mark.parametrize("kind", ["experiment", "debug"])
def test_no_overlay_sets_a_key_without_effect(kind: str) -> None:
    for path in sorted((CONF / kind).glob("*.yaml")):
        check(f"{kind}={path.stem}")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["+learning_rate=1e-1"], "did you mean lr?"),
        (["+bs=3"], "did you mean batch_size?"),
        (["+num_epochs=3"], "did you mean epochs?"),
        (["+random_seed=3"], "did you mean seed?"),
        (["+foo.bar=1"], "+notes.foo="),
        (["optimizer.lr=0.1"], "give lr=0.1"),
        (["scheduler.max_lr=0.1"], "give lr=0.1"),
        (["optimizer=adamw", "optimizer.weight_decay=0.3"], "give weight_decay=0.3"),
        (["++optimizer.weight_decay=0.3"], "give weight_decay=0.3"),
        (["~optimizer.weight_decay"], "leave optimizer.weight_decay as it is"),
        (["optimizer={lr: 0.1}"], "give lr=0.1"),
        (["experiment=cifar100_optimizer", "optimizer.lr=0.1"], "give lr=0.1"),
        (["data.batch_size=3"], "give batch_size=3"),
        (["data.seed=3"], "give seed=3"),
        (["data.augmentation=null"], "override augmentation instead"),
        (["model=timm", "+model.weights=x.safetensors"], "give weights=x.safetensors"),
        (
            ["task=instance_segmentation", "model@model.backbone=timm", "+model.backbone.weights=default"],
            "give weights=default",
        ),
        (
            [SEGMENTATION, "loss=dice_cross_entropy", "loss.losses.cross_entropy.label_smoothing=0.1"],
            "give label_smoothing=0.1",
        ),
        ([SEGMENTATION, "loss=dice", "label_smoothing=0.2"], "loss=dice takes no label_smoothing"),
        ([SEGMENTATION, "loss=lovasz", "label_smoothing=0.2"], "loss=lovasz takes no label_smoothing"),
        (["task=instance_segmentation", "label_smoothing=0.2"], "loss=none takes no label_smoothing"),
        (["data.validation=test", "data.val_fraction=0.3"], "no effect with data.validation=test"),
        (["task=finetuning", "task.lr_decay=0.1"], "no effect with task.trained=head"),
        (["task=finetuning", "task.unfreeze_every=2"], "no effect with task.trained=head"),
        ([SEGMENTATION, "task.freeze_encoder=true", "task.encoder_lr_ratio=0.1"], "no effect with task.freeze_encoder"),
        (["+optimizer.momentum=0.9"], "torch.optim.Adam takes no momentum"),
        (["optimizer=sgd", "+optimizer.momentun=0.9"], "did you mean optimizer.momentum?"),
        (["+model.width=8"], "did you mean model.widths?"),
        (["model=small_cnn", "+model.scale=0.5"], "takes no scale"),
        (["data=cifar10", "+data.train_count=5"], "Cifar10 takes no train_count"),
        (["+trainer.gradient_clip=1"], "takes no gradient_clip"),
        (["+scheduler.warmup=0.1"], "one_cycle takes no warmup"),
        (["+augmentation.crop.pading=0.1"], "did you mean augmentation.crop.padding?"),
        (["callbacks=[default,ema]", "+callbacks.ema.decai=0.9"], "did you mean callbacks.ema.decay?"),
        (["+callbacks.early_stopping.patience=3"], "callbacks.early_stopping={'patience': 3} names nothing"),
        (["scheduler=none", "+scheduler.gamma=0.1"], "scheduler={'gamma': 0.1} names nothing"),
        (["+loss.losses.focal.gamma=2"], "takes no losses"),
        (["+task.knn=20"], "Classification takes no knn"),
        (["pictures.count=many"], "give a number"),
        (["optimizer.decay_norms=flase"], "optimizer.decay_norms=flase: give true or false"),
        (["optimizer=sgd", "optimizer.nesterov=yes"], "give true or false"),
        (["+optimizer.amsgrad=on"], "give true or false"),
        (["trainer.deterministic=flase"], "give true or false or null or warn"),
        (["trainer.compile=treu"], "give true or false"),
        (["data=cifar10", "data.download=no"], "give true or false"),
        (["task=linear_probing", "task.standardise=off"], "give true or false"),
        (["task=linear_probing", "task.knn=true"], "give a number or null"),
        (["callbacks=[default,ema]", "callbacks.ema.warmup=flase"], "give true or false"),
        (["model._target_=mine.Net"], "mine.Net was not found"),
        (["optimizer=_base"], "names nothing to instantiate"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_has_no_effect_is_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        check(*overrides)
    assert words in str(error.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ["lr=0.1", "weight_decay=0.1", "label_smoothing=0.1", "batch_size=3", "seed=3"],
        [SEGMENTATION, "loss=dice", "label_smoothing=0.0"],  # it says what is so
        [SEGMENTATION, "loss=dice_cross_entropy", "label_smoothing=0.2"],
        ["data=folder", "data.root=my_images"],  # which folder it is does not identify a trial
        ["+notes.reason=why", "+notes.n=3"],
        ["optimizer=sgd", "optimizer.momentum=0.5", "optimizer.nesterov=true"],
        ["task=finetuning", "task.trained=2", "task.lr_decay=0.1", "task.unfreeze_every=2"],
        ["data.val_fraction=0.3"],
        ["trainer.deterministic=warn", "+trainer.gradient_clip_algorithm=value"],
        [SEGMENTATION, "model=smp", "+model.decoder_channels=[64,32,16,8,8]"],
        ["task=instance_segmentation", "model=mask_rcnn", "+model.box_score_thresh=0.1"],
        ["callbacks=[default,early_stopping]", "+callbacks.early_stopping.min_delta=0.1"],
        ["augmentation.flip=null", "data.train_subset=0.5"],
        ["logger=[tensorboard,csv]", "logger.tensorboard.default_hp_metric=true"],
    ],
    ids=" ".join,
)
def test_what_has_an_effect_is_not(overrides: list[str]) -> None:
    check(*overrides)


@pytest.mark.parametrize(
    ("name", "content", "overrides", "words"),
    [
        ("experiment/mine", "# @package _global_\noptimizer:\n  lr: 0.1\n", [], "give lr=0.1"),
        (
            "optimizer/mine",
            "_target_: torch.optim.SGD\nlr: 0.1\n",
            ["scheduler=none"],
            "has optimizer.lr=0.1 in its config",
        ),
        ("optimizer/mine", "_target_: torch.optim.SGD\n", ["scheduler=none", "lr=0.1"], "optimizer=mine takes no lr"),
    ],
)
def test_configs_of_a_users_own_are_checked_too(
    tmp_path: Path, name: str, content: str, overrides: list[str], words: str
) -> None:
    path = tmp_path / f"{name}.yaml"
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(ValueError, match=words):
        check(name.replace("/", "="), *overrides, conf=tmp_path)


def test_the_knobs_that_are_passed_on_change_a_component() -> None:
    """Each in the group that its message names."""
    for knob, group in PASSED_ON.items():
        plain, other = check(), check(f"{knob}=0.25" if knob != "batch_size" else "batch_size=7")
        assert OmegaConf.to_container(plain[group], resolve=True) != OmegaConf.to_container(other[group], resolve=True)


def test_an_option_that_torchvision_would_ignore_is_refused() -> None:
    from cv_lab.models.mask_rcnn import TorchvisionMaskRCNN

    with pytest.raises(ValueError, match="box_score_tresh has no effect"):
        TorchvisionMaskRCNN(box_score_tresh=0.1)
    with pytest.raises(ValueError, match=r"model\.min_size"):
        TorchvisionMaskRCNN(min_size=200)  # the network's own resizing is not used


class Base:
    def __init__(self, depth: int = 1) -> None: ...


class HandsOn(Base):
    def __init__(self, width: int = 1, **options: Any) -> None:
        super().__init__(**options)


class KeepsAll(Base):
    def __init__(self, width: int = 1, **options: Any) -> None:
        super().__init__(depth=2)
        self.options = options


class NoConstructor:
    pass


@pytest.mark.parametrize(
    ("target", "names", "further"),
    [
        (Base, {"depth"}, False),
        (HandsOn, {"width", "depth"}, False),
        (KeepsAll, {"width"}, True),
        (NoConstructor, set(), False),
        (lambda a, /, b, *c, d=False: None, {"b", "d"}, False),
        (lambda **options: None, set(), True),
    ],
)
def test_arguments_of_a_target(target: Callable[..., Any], names: set[str], further: bool) -> None:
    arguments, more = arguments_of(target)
    assert (set(arguments), more) == (names, further)


def test_similar_names() -> None:
    known = ("lr", "batch_size", "weight_decay", "epochs", "data")
    meant = {"learning_rate": "lr", "LR": "lr", "wd": "weight_decay", "batchsize": "batch_size", "max_epochs": "epochs"}
    assert {name: similar(name, known) for name in meant} == meant
    assert similar("temperature", known) is None


def test_what_does_not_identify_does_not_name_either() -> None:
    assert not any(map(KEYS.is_identifying, ("notes.x", "pictures.count", "logger.csv.name", "data.resident", "study")))
    assert all(map(KEYS.is_identifying, ("data", "data.train_subset", "lr", "optimizer.momentum")))
    assert trial_name(["+notes.reason=why", "pictures.count=3", "lr=0.1"]) == "lr=0.1"


def test_a_study_is_refused_before_a_trial_runs(
    train: Callable[..., Path], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for overrides, words in (
        (["lr=1e-2,1e-3", "+learning_rate=1"], "all 2 trials: learning_rate=1"),
        (["optimizer.lr=1e-2,1e-3"], "give lr=0.001"),
        (["optimizer=adam,sgd", "++optimizer.momentum=0.5"], "#0: optimizer.momentum=0.5: torch.optim.Adam takes no"),
    ):
        with pytest.raises(SystemExit) as end:
            train("-m", *TINY, *PLAIN, *overrides)
        assert end.value.code == 1
        assert words in capfd.readouterr().out
        assert not list(tmp_path.rglob("trial.json"))


def test_a_trial_of_its_own_is_refused_too(
    train: Callable[..., Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as end:
        train(*TINY, *PLAIN, "+learning_rate=1")
    assert end.value.code == 1
    assert "did you mean lr?" in capsys.readouterr().out
    assert not list(tmp_path.rglob("metrics.csv"))


def test_hydra_does_not_advise_to_append_an_unknown_key() -> None:
    answer = subprocess.run(
        [sys.executable, "train.py", "learning_rate=0.1"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 1
    assert "did you mean lr?" in answer.stderr
    assert "append" not in answer.stderr

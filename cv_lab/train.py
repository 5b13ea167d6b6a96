"""``cv-lab train``: compose a config with Hydra and run its trial. Imports torch and Lightning inside the trial only,
so that ``--help`` and ``--cfg job`` answer at once."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from hydra import utils, version
from hydra._internal.utils import _run_hydra, get_args_parser
from omegaconf import DictConfig

from cv_lab.config import CONF, defer_overrides, register_config
from cv_lab.knobs import check_names


def main(arguments: Sequence[str] | None = None) -> None:
    """Run Hydra on overrides and flags such as ``-m``; None takes those of the process.

    It does what ``hydra.main`` does, with two differences. Overrides may stand on both sides of a flag, as in Hydra
    1.4. And ``sys.argv`` stays as it is, with the name of the subcommand, since Lightning starts the other processes of
    a trial on several devices by the same command.
    """
    version.setbase("1.3")
    register_config()
    parser = get_args_parser()
    options = parser.parse_intermixed_args(arguments)
    check_names(options, CONF)
    options.overrides = defer_overrides(options.overrides)
    with any_target():
        _run_hydra(
            args=options,
            args_parser=parser,
            task_function=run,
            config_path=str(CONF),
            config_name="train",
        )


def run(config: DictConfig) -> float:
    """Run the trial that `config` describes and return the best value of its monitored metric."""
    from cv_lab.trial.run import run_trial

    with any_target():
        return run_trial(config)


def any_target() -> AbstractContextManager[None]:
    """Let a trial's config name any module in `_target_`, as Hydra 1.3 does.

    Hydra 1.4 wants a list of those allowed. But the config of a trial is the user's own, with modules of their own.
    """
    if not hasattr(utils, "execution_whitelist"):  # Hydra 1.3
        return nullcontext()
    return utils.execution_whitelist(utils.UNSAFE_DISABLE_EXECUTION_CHECKS)  # type: ignore[attr-defined]

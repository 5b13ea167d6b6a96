"""Run one trial, or with ``-m`` a study of many.

    python train.py                                                   # one trial on embedded data
    python train.py -m optimizer=adam,sgd,rmsprop lr=1e-2,1e-3,1e-4   # a study of nine
    python train.py experiment=cifar100_learning_rate                 # a published study

Torch and Lightning are imported inside the trial only, so ``--help`` and ``--cfg job`` answer at once.
"""

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from cv_lab.config import defer_overrides, register_config

register_config()


@hydra.main(version_base="1.3", config_path=str(Path(__file__).parent / "conf"), config_name="train")
def main(config: DictConfig) -> float:
    """Run the trial that `config` describes and return the best value of its monitored metric."""
    from cv_lab.trial.run import run_trial

    return run_trial(config)


if __name__ == "__main__":
    sys.argv[1:] = defer_overrides(sys.argv[1:])
    main()

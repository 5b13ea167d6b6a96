"""Fetch data sets before they are needed, for example on a login node whose workers have no network.

    python scripts/download_data.py cifar10 cifar100 [data_dir=data]

Names are those of ``conf/data``; further arguments are overrides, as for ``train.py``.
"""

import sys
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from cv_lab.config import register_config

CONF = Path(__file__).parent.parent / "conf"


def main(arguments: list[str]) -> None:
    names = [argument for argument in arguments if "=" not in argument]
    overrides = [argument for argument in arguments if "=" in argument]
    if not names:
        sys.exit(__doc__)
    register_config()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for name in names:
            config = compose("train", [f"data={name}", "trial_dir=.", "study=download", *overrides])
            try:
                instantiate(config.data).prepare_data()
            except (OSError, RuntimeError, ValueError) as error:  # of the network, of torchvision, of ours
                sys.exit(f"error: {name}: {error}")
            print(f"{name}: ready in {config.data_dir}")


if __name__ == "__main__":
    main(sys.argv[1:])

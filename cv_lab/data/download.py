"""Fetch data sets before they are needed, for example on a login node whose workers have no network.

    cv-lab download cifar10 cifar100 [data_dir=data]

Names are those of the group `data`; further arguments are overrides, as for ``cv-lab train``.
"""

import argparse
import sys
from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, InstantiationException
from hydra.utils import instantiate
from omegaconf.errors import OmegaConfBaseException

from cv_lab.config import CONF, register_config


def main(arguments: Sequence[str] | None = None) -> None:
    """Download and check the data sets that `arguments` name; None takes those of the process.

    Raises:
        SystemExit: if one cannot be had.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", help="names of data sets, and overrides such as data_dir=FOLDER")
    given: list[str] = parser.parse_args(arguments).data
    names = [argument for argument in given if "=" not in argument]
    overrides = [argument for argument in given if "=" in argument]
    if not names:
        parser.error("name at least one data set, such as cifar10")
    register_config()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for name in names:
            try:
                config = compose("train", [f"data={name}", "trial_dir=.", "study=download", *overrides])
                instantiate(config.data).prepare_data()
            except InstantiationException as error:  # whose message buries that of its cause
                sys.exit(f"error: {name}: {error.__cause__ or error}")
            except (HydraException, OmegaConfBaseException, OSError, RuntimeError, ValueError) as error:
                sys.exit(f"error: {name}: {error}")
            print(f"{name}: ready in {config.data_dir}")


if __name__ == "__main__":
    main()

"""The command `cv-lab export` from a checkout: `python scripts/export.py --help` lists its arguments."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from cv_lab.trial.export import main

if __name__ == "__main__":
    main()

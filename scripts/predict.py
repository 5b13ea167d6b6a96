"""The command `cv-lab predict` from a checkout: `python scripts/predict.py --help` lists its arguments."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from cv_lab.trial.predict import main

if __name__ == "__main__":
    main()

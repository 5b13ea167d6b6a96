"""The same as ``cv-lab download``: fetch data sets before they are needed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from cv_lab.data.download import main

if __name__ == "__main__":
    main()

"""``python -m cv_lab`` does the same as ``cv-lab``."""

from cv_lab.cli import main

if __name__ == "__main__":
    main()

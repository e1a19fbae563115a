import sys

from rkd.cli import main

if __name__ == "__main__":  # a process started from here imports this module again
    sys.exit(main())

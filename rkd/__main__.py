import sys

from rkd.cli import main

sys.exit(main())

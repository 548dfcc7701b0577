"""`python -m beatline`, for torchrun."""

import sys

from beatline.cli import main

sys.exit(main())

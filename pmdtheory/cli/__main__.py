"""``python -m pmdtheory.cli``."""

import sys

from . import main

sys.exit(main())

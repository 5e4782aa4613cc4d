"""`python -m pcaseg` is the command `pcaseg`."""

import sys

from pcaseg.cli import main

sys.exit(main())

"""``python -m ocrmem`` is the ``ocrmem`` command."""

import sys

from ocrmem.cli import main

sys.exit(main())

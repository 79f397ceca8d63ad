"""Runs the `alignkit` command for `python -m align`."""

import sys

from .cli import main

sys.exit(main())

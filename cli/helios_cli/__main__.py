"""`python -m helios_cli`: the same as `helios`."""

from __future__ import annotations

import sys

from helios_cli.main import main

if __name__ == "__main__":
    sys.exit(main())

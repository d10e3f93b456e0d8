"""`python -m helios_server.profile`: the same as `helios profile`."""

from __future__ import annotations

import sys

from helios_server.profile import main

if __name__ == "__main__":
    sys.exit(main())

"""`python -m tests.local.brief`: the `helios` command, whose timings go on for as few rounds as one may have.

Started in place of it for Jobs whose figures no test looks at: otherwise each takes 12 seconds of a core.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from helios_cli.main import main
from helios_server.profile.sweep import EFFORTS


def command(*arguments: str) -> list[str]:
    """In place of `helios_command`."""
    return [sys.executable, "-m", "tests.local.brief", *arguments]


if __name__ == "__main__":
    EFFORTS["rapid"] = replace(EFFORTS["rapid"], seconds=0.0)
    sys.exit(main(sys.argv[1:]))

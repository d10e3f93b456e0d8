"""`kubectl helios VERB`: the verbs that speak to a cluster, and to nothing else.

kubectl runs `kubectl-helios` from the PATH and hands on all arguments. It must add nothing to what `helios`
does.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from helios_cli.arguments import KUBECTL
from helios_cli.main import VERBS, enter

_VERBS = ("status", "why", "report", "profiles", "reassess", "switch", "rollback", "pause")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    return enter(arguments, KUBECTL, {verb: VERBS[verb] for verb in _VERBS}, KUBECTL)

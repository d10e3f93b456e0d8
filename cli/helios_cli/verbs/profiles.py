"""`helios profiles [NAME]`: the Performance History Table, all of it or what one deployment uses."""

from __future__ import annotations

from collections.abc import Sequence

from helios_operator.local.store import PROFILE

from helios_cli import state
from helios_cli.arguments import Parser
from helios_cli.output import columns, show
from helios_cli.views import ProfileView, short_time


def run(argv: Sequence[str]) -> int:
    parser = Parser("profiles", "What was measured.").with_output().with_state()
    parser.add_argument("name", metavar="NAME", nargs="?", help="only what this HeliosDeployment uses")
    options = parser.parse_args(argv)
    found = [state.holding(options.name, options.state)] if options.name else state.every(options.state)
    views = [ProfileView.of(obj) for folder in found for obj in folder.store.objects(PROFILE)]
    if options.name:
        views = [view for view in views if options.name in view.used_by]
    show(views, options.output, _table)
    return 0


def _table(views: Sequence[ProfileView]) -> None:
    if not views:
        print("No profiles yet.")
        return
    rows = [
        [v.name, v.kind, v.phase, v.about, v.summary, short_time(v.completed), ",".join(v.used_by)]
        for v in views
    ]
    print(columns(("NAME", "KIND", "PHASE", "MODEL", "MEASURED", "COMPLETED", "USED BY"), rows))

"""`helios profiles [NAME]`: the Performance History Table, all of it or what one deployment uses."""

from __future__ import annotations

from collections.abc import Sequence

from helios_cli.arguments import HELIOS, Parser
from helios_cli.output import columns, show
from helios_cli.places import place
from helios_cli.views import PUBLISHED, ProfileView, short_time


def run(argv: Sequence[str], program: str = HELIOS) -> int:
    parser = Parser("profiles", "What was measured.", program).with_output().with_place(several=True)
    parser.add_argument("name", metavar="NAME", nargs="?", help="only what this HeliosDeployment uses")
    options = parser.parse_args(argv)
    with place(options) as here:
        rows = here.find(options.name).profiles() if options.name else here.profiles()
    views = [ProfileView.of(obj) for obj in rows]
    if options.name:
        views = [view for view in views if options.name in view.used_by]
    show(views, options.output, lambda views: print(_table(views, options.everywhere)))
    return 0


def _table(views: Sequence[ProfileView], namespaces: bool) -> str:
    shown = any(v.precision != PUBLISHED for v in views)
    precision = ("PRECISION",) if shown else ()
    titles: tuple[str, ...] = (
        "NAME", "KIND", "PHASE", "MODEL", *precision, "COMPLETED", "USED BY"
    )  # fmt: skip
    rows = [
        [v.name, v.kind, v.phase, v.about, *((v.precision,) if shown else ()), 
         short_time(v.completed), ",".join(v.used_by)]
        for v in views
    ]  # fmt: skip
    if namespaces:
        titles = ("NAMESPACE", *titles)
        rows = [[v.namespace, *row] for v, row in zip(views, rows, strict=True)]
    return columns(titles, rows, notes=[v.summary for v in views]) if rows else "No profiles yet."

"""Does the traffic decide the outcome? The demo's first act under other orders of traffic and other bundles.

`python -m bench.scenarios`: each scenario starts from nothing, with every part real; what was chosen and
what changed stands as it fell. Streams that a change found under way are compared with a run alone, at the
model, heads and depth that their trailing metadata name. Claims: per scenario the changes, the layers at the
end, the quality in its last phase, requests that failed, and streams that such a run does not come to.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from helios_operator.api.types import HistoryEntry
from helios_server.engine.offline import Shelf, first_difference
from helios_server.engine.sampling import SamplingParams
from helios_server.exits.bundle import BundleRef, open_bundle
from helios_server.models.cache import cache_root
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.store import ensure_smollm2
from helios_server.models.tokenizer import Tokenizer
from helios_server.rpc.messages import read_spans

from bench.report import Claim, arguments, publish
from examples.demo import report
from examples.demo.__main__ import CALLERS, EXAMPLES, load_objects
from examples.demo.act import Act, Outcome, Programme
from examples.demo.screen import Screen
from examples.demo.traffic import Stream

_FOLLOWED = 6
"""Streams of each change that are run again alone."""


@dataclass(frozen=True)
class Scenario:
    """A file of `examples/` and the order in which its traffic comes."""

    name: str
    file: str
    traffic: tuple[str, ...]


SCENARIOS = (
    Scenario("prose", "demo.yaml", ("prose",)),
    Scenario("prose-code", "demo.yaml", ("prose", "code")),
    Scenario("code-prose", "demo.yaml", ("code", "prose")),
    Scenario("prose-german", "demo.yaml", ("prose", "german")),
    Scenario("specialists-prose-code", "specialists.yaml", ("prose", "code")),
)


def main() -> None:
    parser = arguments(__doc__)
    names = [scenario.name for scenario in SCENARIOS]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    options = parser.parse_args()
    follower = Follower(ensure_smollm2())
    figures: dict[str, Any] = {}
    claims: list[Claim] = []
    for scenario in SCENARIOS:
        if scenario.name in options.only:
            told = play(scenario, follower)
            figures[scenario.name] = told
            claims += _claims(scenario.name, told)
            print(f"{scenario.name}: {told['changes']}", file=sys.stderr)
    publish(options.output, figures, claims)


def play(scenario: Scenario, follower: Follower) -> dict[str, Any]:
    objects = load_objects(EXAMPLES / scenario.file)
    osl = objects[-1]["spec"]["workload"]["osl"]
    programme = Programme(1, scenario.name, objects, scenario.traffic, callers=CALLERS, osl=osl)
    with tempfile.TemporaryDirectory(prefix="helios-scenario-") as state:
        outcome = asyncio.run(Act(programme, Path(state), cache_root(), Screen(sys.stderr)).play())
    document = report.document([outcome], scenario.traffic)
    return document | {"streams": [_across(change, outcome, follower) for change in outcome.changes]}


def _across(change: HistoryEntry, outcome: Outcome, follower: Follower) -> dict[str, Any]:
    """What became of the streams that a change found under way."""
    found = under_way(outcome.streams, change.time, change.seconds or 0)
    differing = [stream.prompt for stream in found[:_FOLLOWED] if follower.differs(stream)]
    return {"kind": change.kind.value, "underWay": len(found), "followed": len(found[:_FOLLOWED]),
            "failed": sum(bool(stream.error) for stream in found), "differing": differing}  # fmt: skip


def under_way(streams: Sequence[Stream], changed: datetime, seconds: float) -> list[Stream]:
    """Streams that began before a change was begun and ended after it had ended."""
    ended = changed.timestamp() - (time.time() - time.monotonic())
    return [stream for stream in streams if stream.began < ended - seconds - 1 and stream.ended > ended]


class Follower:
    """Runs a stream again alone, as its spans say."""

    def __init__(self, model: Path) -> None:
        checkpoint = Checkpoint.open(model)
        uris = [f"builtin://{name}" for name in ("general", "prose", "code")]
        bundles = {open_bundle(BundleRef(uri), checkpoint).digest: uri for uri in uris}
        self._shelf = Shelf(bundles, volumes=cache_root())
        self._tokenizer = Tokenizer.open(model)

    def differs(self, stream: Stream) -> bool:
        prompt = tuple(self._tokenizer.encode(stream.prompt, add_special=True))
        sampling = SamplingParams(max_tokens=len(stream.output_ids), ignore_eos=True)
        spans = read_spans(stream.spans)
        return first_difference(self._shelf, "", prompt, sampling, spans, stream.output_ids) is not None


def _claims(name: str, told: dict[str, Any]) -> list[Claim]:
    last = told["phases"][-1]
    streams = told["streams"]
    figures = {
        "changes": (len(told["changes"]), "changes"),
        "layers-at-the-end": (last["layers"], "layers"),
        "quality-at-the-end": (last["qualityPercent"], "%"),
        "failed-requests": (told["requests"]["failed"], "requests"),
        "streams-across-changes": (sum(one["underWay"] for one in streams), "streams"),
        "streams-that-differ": (sum(len(one["differing"]) for one in streams), "streams"),
    }
    return [
        Claim(f"{name}-{what}", value, value, value, unit)
        for what, (value, unit) in figures.items()
        if value is not None
    ]


if __name__ == "__main__":
    main()

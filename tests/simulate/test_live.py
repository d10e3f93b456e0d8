"""The tests' world, whose pods and texts know nothing of profiles, is recorded; the simulation of its trace
makes the changes that its loop made."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from helios_cli.trace_texts import texts_of
from helios_contract.request_log import AuditLine, Line, RequestLine, to_json
from helios_operator.simulate import profiles, traffic
from helios_operator.simulate.pods import SimulatedPod
from helios_operator.simulate.replay import Clocks, Replay
from helios_operator.simulate.truth import Text

from tests.decide.builders import selected, world
from tests.decide.truth import CODE, GENERAL, Model
from tests.decide.world import World
from tests.sizes import LONG

LONG_ONLY = [
    pytest.mark.long,
    pytest.mark.skipif(not LONG, reason="`make test-long` runs it: other stories of the same kind"),
]


class Recorded(SimulatedPod):
    """Its requests are written as `--request-log` writes them."""

    def finish(self, text: Text, world, now) -> None:  # type: ignore[no-untyped-def]
        before = self.audits[-1:]
        super().finish(text, world, now)
        limits = self.limits
        lines: list[Line] = [
            RequestLine(
                arrived=now.timestamp(),
                prompt_tokens=64,
                output_tokens=10,
                boot_id=self.boot_id,
                request=self.requests,
                candidate=limits.candidate,
                layer_budget=limits.layer_budget,
                exits_digest=limits.exits_digest,
            )
        ]
        if self.audits[-1:] != before:
            lines.append(AuditLine.of(self.boot_id, self.audits[-1]))
        world.log += [to_json(line) for line in lines]


class Live(World):
    log: list[str]


def lived(models: dict[str, Model], domains: list[str]) -> Live:
    ordinary = world(**models)
    made = Live(ordinary.spec, ordinary.truth, pod=Recorded)
    made.log = []
    selected(made)
    for domain in domains:
        made.serve(160, domain)
        made.run(20)
    return made


@pytest.mark.parametrize(
    ("models", "domains", "changes"),
    [
        ({"general": GENERAL}, ["prose", "code"], 2),
        pytest.param({"general": GENERAL, "code": CODE}, ["prose", "code", "prose"], 3, marks=LONG_ONLY),
        pytest.param({"general": GENERAL}, ["prose", "prose"], 1, marks=LONG_ONLY),
    ],
)
def test_the_same_changes(models: dict[str, Model], domains: list[str], changes: int, tmp_path: Path) -> None:
    made = lived(models, domains)
    (tmp_path / "trace").write_text("\n".join(made.log))
    recorded = traffic.read(tmp_path / "trace")
    resolved = {c.name: made.resolved(c) for c in made.spec.candidates}
    found = profiles.gather(made.spec.candidates, resolved, list(made.rows.values()))
    began = datetime.fromtimestamp(recorded.lines[0].arrived, UTC)
    clocks = Clocks(began, passes=0.5, pod=made.start_seconds, job=made.job_seconds)
    requests = traffic.replayed(recorded, texts_of(recorded, found))
    again = Replay.of(made.spec, found, clocks).serve_all(requests).changes
    lived_through = [entry for entry in made.status.history if entry.result == "Promoted"]
    assert len(lived_through) == changes
    assert [(c.kind, c.to, c.reason) for c in again] == [
        (e.kind.value, f"{e.to.candidate} at {e.to.layer_budget} in auto/auto", e.reason)
        for e in lived_through
    ]
    for change, entry in zip(again[1:], lived_through[1:], strict=True):
        assert abs(change.at - (entry.time - began).total_seconds()) < 20  # audits speak for their neighbours

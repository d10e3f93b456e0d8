"""A trace that cannot be used is named by file, line and field; a candidate that lacks profiles, by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helios_cli.trace_texts import kinds_of, texts_of
from helios_contract.request_log import AuditLine, from_json, to_json
from helios_contract.telemetry import AuditRow
from helios_operator.errors import OperatorError
from helios_operator.simulate import profiles, traffic

from tests.decide.truth import GENERAL
from tests.simulate import made

REQUEST = {"kind": "request", "arrived": 1000.5, "promptTokens": 64, "outputTokens": 48, "request": 1}
AUDIT = {"kind": "audit", "bootId": "b", "request": 1, "tokens": 60, "bytes": 240, "fullMillibits": 200_000}
EXIT = {"digest": "sha256:general", "layer": 24, "millibits": 250_000, "agreeing": 40}


def write(folder: Path, *lines: dict[str, Any] | str) -> Path:
    file = folder / "trace.jsonl"
    file.write_text("".join(f"{x if isinstance(x, str) else json.dumps(x)}\n" for x in lines))
    return file


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ({**REQUEST, "promptTokens": 0}, ":2: promptTokens: is 0; give 1 to 100,000,000"),
        ({**REQUEST, "promptTokens": -3}, ":2: promptTokens: is -3"),
        ({**REQUEST, "promptTokens": "many"}, ":2: promptTokens: is 'many', not an integer"),
        ({**REQUEST, "promptTokens": 1.5}, ":2: promptTokens: is 1.5, not an integer"),
        ({**REQUEST, "outputTokens": -1}, ":2: outputTokens: is -1"),
        ({**REQUEST, "outputTokens": 10**12}, ":2: outputTokens: is 1e+12"),
        ({**REQUEST, "arrived": -1}, ":2: arrived: is -1"),
        ({**REQUEST, "arrived": True}, ":2: arrived: is True, not a number"),
        ({k: v for k, v in REQUEST.items() if k != "arrived"}, ":2: arrived: is missing"),
        ({**REQUEST, "kind": "reqest"}, ":2: kind: is 'reqest', which is none of request, audit"),
        ({"arrived": 1.0}, ":2: kind: is None"),
        ('{"kind": "request", "arrived": NaN}', ":2: is not JSON (NaN is no number)"),
        ('{"kind": "requ', ":2: is not JSON"),
        ("[]", ":2: is '[]', not an object"),
        ({**AUDIT, "fullMillibits": 0}, ":2: fullMillibits: is 0; give 1 or more"),
        ({**AUDIT, "tokens": -1}, ":2: tokens: is -1"),
        ({**AUDIT, "exits": 3}, ":2: exits: is 3, not a list"),
        ({**AUDIT, "exits": [{**EXIT, "millibits": 0}]}, ":2: exits[0].millibits: is 0"),
        ({**AUDIT, "exits": [EXIT, {**EXIT, "agreeing": 61}]}, ":2: exits[1].agreeing: is 61; give 0 to 60"),
        ({**AUDIT, "exits": [{"digest": "d"}]}, ":2: exits[0].layer: is missing"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: dict[str, Any] | str, named: str) -> None:
    file = write(tmp_path, REQUEST, line)
    with pytest.raises(OperatorError) as error:
        traffic.read(file)
    assert f"{file}{named}" in str(error.value)


def test_a_trace_without_answers_is_refused(tmp_path: Path) -> None:
    for lines in ((), ({**REQUEST, "outputTokens": 0},), (AUDIT,)):
        with pytest.raises(OperatorError, match="holds no request that was answered"):
            traffic.read(write(tmp_path, *lines))
    with pytest.raises(OperatorError, match=r"TRACE: .* cannot be read \(No such file"):
        traffic.read(tmp_path / "none")
    (tmp_path / "trace.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(OperatorError, match="is not UTF-8"):
        traffic.read(tmp_path / "trace.jsonl")


def test_what_a_newer_release_adds_is_left_alone(tmp_path: Path) -> None:
    read = traffic.read(write(tmp_path, {**REQUEST, "newField": [1]}, "", {**REQUEST, "arrived": 1e3}))
    assert [line.arrived for line in read.lines] == [1000.0, 1000.5]


def test_an_audit_speaks_for_the_requests_after_it(tmp_path: Path) -> None:
    lines = [{**REQUEST, "arrived": 1000 + n, "request": n, "bootId": "b"} for n in range(1, 7)]
    first = {**AUDIT, "request": 2, "exits": [{**EXIT, "millibits": 300_000}]}
    second = {**AUDIT, "request": 5, "exits": [{**EXIT, "millibits": 400_000}]}
    away = {**AUDIT, "request": 99}
    recorded = traffic.read(write(tmp_path, *lines, second, first, away))
    found = made.found()
    (model,) = (model for model in found.truth.values() if model.digest == GENERAL.digest)
    texts = texts_of(recorded, found)
    bits = [text.millibits(model, 24) for text in texts]
    assert bits == [300_000] * 4 + [400_000] * 2
    assert [text.millibits(model, 30) for text in texts] == [200_000] * 6
    assert texts[0].agreement(model, 24) == pytest.approx(40 / 60)
    (other,) = (model for model in found.truth.values() if model.digest != GENERAL.digest)
    like = texts[0].like.millibits(other, 24) / texts[0].like.millibits(other, 30)  # type: ignore[attr-defined]
    assert texts[0].millibits(other, 24) == pytest.approx(200_000 * like, rel=1e-4)


def test_an_audit_in_another_precision_is_taken_beside_its_own_full_depth(tmp_path: Path) -> None:
    """Whichever full depth it was compared with: both say the same of the exit."""
    lines = [{**REQUEST, "arrived": 1000 + n, "request": n, "bootId": "b"} for n in range(1, 3)]
    exits = [{**EXIT, "millibits": 330_000}, {**EXIT, "layer": 30, "millibits": 220_000}]
    published = {**AUDIT, "request": 1, "exits": exits}
    own = {**AUDIT, "request": 2, "exits": exits[:1], "fullMillibits": 220_000, "reference": "own"}
    found = made.found()
    (model,) = (model for model in found.truth.values() if model.digest == GENERAL.digest)
    texts = texts_of(traffic.read(write(tmp_path, *lines, published, own)), found)
    assert [(text.millibits(model, 24), text.millibits(model, 30)) for text in texts] == [
        (330_000, 220_000)
    ] * 2


def test_audits_of_other_heads_are_refused(tmp_path: Path) -> None:
    strange = {**AUDIT, "exits": [{**EXIT, "digest": "sha256:strange"}]}
    recorded = traffic.read(write(tmp_path, {**REQUEST, "bootId": "b"}, strange))
    with pytest.raises(OperatorError, match=r"TRACE: .*exit heads that no candidate has \(sha256:strange"):
        texts_of(recorded, made.found())


def test_a_line_survives_its_text() -> None:
    row = AuditRow(7, 60, 240, 1000, {("", 24): (1200, 50), ("sha256:x", 27): (1100, 55)}, "own")
    line = AuditLine.of("boot", row)
    assert from_json(to_json(line)) == line
    assert line.row == row


def test_missing_profiles_are_named_by_candidate() -> None:
    world, rows = made.measured()
    candidates = world.spec.candidates
    resolved = {c.name: world.resolved(c) for c in candidates}
    (general, code) = (next(c for c in candidates if c.name == name) for name in ("general", "code"))

    def complaint(*arguments: Any) -> str:
        with pytest.raises(OperatorError) as error:
            profiles.gather(*arguments)
        return str(error.value)

    assert complaint(candidates, {"code": resolved["code"]}, rows).startswith(
        "candidates[general]: was never inspected"
    )
    assert "hold no finished Timing profile" in complaint(candidates, resolved, [])
    timings = [row for row in rows if row.name.startswith("t-")]
    assert "has no Quality profile" in complaint(candidates, resolved, timings)
    of_one = [
        row
        for row in rows
        if row in timings
        or (row.identity.exits_digest == GENERAL.digest) == (row.identity.prompts_digest == "sha256:code")  # type: ignore[union-attr]
    ]
    assert "no set of prompts on which every candidate was scored" in complaint(
        (general, code), resolved, of_one
    )


def test_one_set_of_prompts_makes_two_kinds_of_traffic() -> None:
    world, rows = made.measured()
    resolved = {c.name: world.resolved(c) for c in world.spec.candidates}
    prose = [row for row in rows if getattr(row.identity, "prompts_digest", "sha256:prose") == "sha256:prose"]
    easy, hard = kinds_of(profiles.gather(world.spec.candidates, resolved, prose))
    (model,) = (m for m in made.found().truth.values() if m.digest == GENERAL.digest)

    def mean(texts: Any) -> float:
        return sum(t.millibits(model, 30) / t.millibits(model, 24) for t in texts) / len(texts)

    assert len(easy) + len(hard) == 48
    assert mean(easy) > mean(hard)


def test_generated_traffic_follows_its_rate_and_phases() -> None:
    drift = traffic.Drift(5500, rate=10, shift=100, seed=5, isl=64, osl=48)
    kinds = kinds_of(made.found())
    requests = list(traffic.generated(drift, kinds))
    assert requests == list(traffic.generated(drift, kinds))
    of_phase: dict[int, list[traffic.Request]] = {}
    for request in requests:
        of_phase.setdefault(int(request.arrived / 100), []).append(request)
    assert [len(of_phase[n]) / 1000 for n in range(3)] == pytest.approx([1, 1, 1], rel=0.15)
    assert len(of_phase[3]) / 1000 == pytest.approx(2, rel=0.15)
    domains = [{r.text.domain for r in of_phase[n]} for n in range(4)]
    assert domains[0] == domains[3]
    assert not domains[0] & domains[1]
    assert domains[2] == domains[0] | domains[1]
    assert sum(r.prompt_tokens for r in requests) / 5500 == pytest.approx(64, rel=0.05)

"""A Job's result document becomes rows; anything else becomes an error that says so."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from helios_contract.serves import Precision
from helios_operator.api import identity, results
from helios_operator.api.rows import Hardware, QualityIdentity, RowPhase, TimingIdentity
from helios_operator.api.types import Candidate
from helios_operator.errors import ResultError

NOW = datetime(2026, 11, 23, tzinfo=UTC)
TIMING = {
    "schema": "helios-result/1",
    "kind": "timing",
    "fit": {
        "stepNs": 900, "perLayerNs": 310, "perLayerRowNs": 2, "perLayerKvTokenNs": 1,
        "head": {"mlp": {"baseNs": 7, "perRowNs": 9}}, "errorPercent": 4,
    },
    "memory": {
        "processStartBytes": 1, "fixedBytes": 2, "layerBytes": 3, "kvBytesPerTokenLayer": 4,
        "activationBytesPerToken": 5, "rowBytes": 6, "stepTokens": 128, "pageTokens": 16,
    },
    "exitBytes": {"mlp": 10},
    "auditBytes": 11,
    "points": [
        {"layerBudget": 12, "rows": 16, "kvTokens": 100, "sampled": 16, "headKind": "mlp",
         "stepP50Us": 5100, "stepP95Us": 5900}
    ],
}  # fmt: skip
QUALITY = {
    "schema": "helios-result/1",
    "kind": "quality",
    "promptsDigest": "sha256:p",
    "prompts": 2,
    "tokens": 90,
    "bytes": 400,
    "promptBytes": [180, 220],
    "rows": [
        {"candidate": "a", "exitsDigest": "sha256:a", "exits": [
            {"layer": 24, "millibits": 1000, "agreementPercent": 83, "firstAgreesPercent": 60, "eceMilli": 12,
             "meanConfidenceMilli": 700, "promptMillibits": [450, 550]},
            {"layer": 30, "millibits": 940, "agreementPercent": 100, "firstAgreesPercent": 40, "eceMilli": 8,
             "meanConfidenceMilli": 710, "promptMillibits": [430, 510]}]},
        {"candidate": "b", "exitsDigest": "", "exits": [
            {"layer": 30, "millibits": 940, "agreementPercent": 100, "firstAgreesPercent": 100, "eceMilli": 8,
             "meanConfidenceMilli": 710}]},
    ],
}  # fmt: skip


def test_an_inspection_names_what_failed() -> None:
    document = results.read(
        json.dumps(
            {
                "schema": "helios-result/1",
                "kind": "inspect",
                "resolved": {
                    "good": {
                        "revision": "abc", "backbone": "f00", "numLayers": 30, "maxContextTokens": 2048,
                        "exitsDigest": "", "headKind": "bare", "exitLayers": [24, 27],
                        "breachThresholds": {"24": 0.31},
                    },
                    "bad": {"error": "file:///x: no directory /x; Check the uri"},
                },
            }
        )
    )  # fmt: skip
    found = results.inspection(document)
    assert found.resolved["good"].exit_layers == (24, 27)
    assert found.resolved["good"].breach_thresholds == {24: 0.31}
    assert found.problems == {"bad": "file:///x: no directory /x; Check the uri"}


def test_a_timing_becomes_the_row_of_its_identity() -> None:
    hardware = Hardware(None, 0, 1000, "cpu", 2, "float16")
    measured = TimingIdentity("file:///m", "abc", "float16", ("mlp",), hardware, 1)
    row = results.timing(results.read(json.dumps(TIMING)), measured, NOW)
    assert row.name == identity.timing_name(measured)
    assert row.phase is RowPhase.COMPLETE
    assert row.fit is not None
    assert row.fit.heads["mlp"].per_row_ns == 9
    assert row.memory is not None
    assert row.memory.page_tokens == 16
    assert (row.exit_bytes, row.audit_bytes) == ({"mlp": 10}, 11)


def test_quality_rows_get_their_candidates_identity_and_full_depths_bits() -> None:
    candidates = {name: Candidate(name, "file:///m", "abc") for name in "ab"}
    a, b = results.quality(results.read(json.dumps(QUALITY)), candidates, NOW)
    assert a.name == identity.quality_name(QualityIdentity("file:///m", "abc", "sha256:a", "sha256:p"))
    assert a.prompt_bytes == b.prompt_bytes == (180, 220)
    assert b.exits[-1].prompt_millibits == (430, 510)  # given once, in the first row


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "not json", '{"schema": "helios-result/9"}', '{"schema": ["helios-result/1"]}']
)
def test_what_is_no_document_is_refused(text: str) -> None:
    with pytest.raises(ResultError, match=r"result: .*same release"):
        results.read(text)


@pytest.mark.parametrize("missing", ["fit", "memory"])
def test_a_timing_without_its_parts_is_refused(missing: str) -> None:
    document = {key: value for key, value in TIMING.items() if key != missing}
    measured = TimingIdentity("m", "r", "float16", (), Hardware(None, 0, 1, "", 1, "float16"), 1)
    with pytest.raises(ResultError):
        results.timing(results.read(json.dumps(document)), measured, NOW)


def test_a_quality_of_an_unknown_candidate_is_refused() -> None:
    with pytest.raises(ResultError):
        results.quality(results.read(json.dumps(QUALITY)), {}, NOW)


def test_a_failure_is_a_sentence() -> None:
    error = {"field": "prompts", "problem": "holds none", "fix": "give one"}
    failed = {"schema": "helios-result/1", "kind": "quality", "error": error}
    assert results.failure(results.read(json.dumps(failed))) == "prompts: holds none; give one"
    assert results.failure(results.read(json.dumps(QUALITY))) is None


PRECISIONS = (Precision(), Precision("int8"), Precision("int8", "int8"))
IDENTITY = TimingIdentity(
    "file:///m", "abc", "float16", ("mlp",), Hardware(None, 0, 1000, "cpu", 2, "float16"), 1
)


def timed(*precisions: Precision) -> str:
    """A document of several; each layer is as large as its place says."""
    bare = {key: value for key, value in TIMING.items() if key not in ("schema", "kind")}
    rows = [
        bare | {"weightDtype": p.weight_dtype, "kvCacheDtype": p.kv_cache_dtype, "auditBytes": place}
        for place, p in enumerate(precisions)
    ]
    return json.dumps({"schema": "helios-result/1", "kind": "timings", "timings": rows})


def wanted(*precisions: Precision) -> dict[Precision, TimingIdentity]:
    return {
        p: replace(IDENTITY, weight_dtype=p.weight_dtype, kv_cache_dtype=p.kv_cache_dtype) for p in precisions
    }


def test_timings_become_a_row_each_whatever_their_order() -> None:
    rows = results.timings(results.read(timed(*PRECISIONS[::-1])), wanted(*PRECISIONS), NOW)
    assert [row.identity.precision for row in rows] == list(PRECISIONS)
    assert [row.audit_bytes for row in rows] == [2, 1, 0]
    assert [row.name for row in rows] == [identity.timing_name(each) for each in wanted(*PRECISIONS).values()]


def test_a_job_may_measure_less_than_it_was_asked_for_and_nothing_else() -> None:
    (row,) = results.timings(results.read(timed(PRECISIONS[1])), wanted(*PRECISIONS), NOW)
    assert row.identity.precision == PRECISIONS[1]
    with pytest.raises(ResultError, match="int8/int8, not asked for"):
        results.timings(results.read(timed(*PRECISIONS)), wanted(*PRECISIONS[:2]), NOW)


def test_a_job_for_the_reference_alone_writes_what_it_always_wrote() -> None:
    (row,) = results.timings(results.read(json.dumps(TIMING)), wanted(Precision()), NOW)
    assert row == results.timing(results.read(json.dumps(TIMING)), IDENTITY, NOW)


def test_quality_has_a_row_for_each_precision_and_full_depths_bits_stand_in_the_first_of_each() -> None:
    document = json.loads(json.dumps(QUALITY))
    again = json.loads(json.dumps(document["rows"]))
    for row in again:
        row |= {"weightDtype": "int8"}
        for depth in row["exits"]:
            depth["millibits"] += 7
    again[0]["exits"][-1]["promptMillibits"] = [433, 514]
    document["rows"] += again
    candidates = {name: Candidate(name, "file:///m", "abc") for name in "ab"}
    rows = results.quality(results.read(json.dumps(document)), candidates, NOW)
    assert [str(row.identity.precision) for row in rows] == ["auto/auto"] * 2 + ["int8/auto"] * 2
    assert [row.exits[-1].prompt_millibits for row in rows] == [(430, 510)] * 2 + [(433, 514)] * 2
    assert len({row.name for row in rows}) == 4

"""The result document: complete where it fits, thinner but never wrong where it does not, written whole or
not."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from helios_operator.api import results
from helios_operator.api.types import Candidate
from helios_server.errors import CheckpointError, InvalidRequest
from helios_server.profile.document import LIMIT_BYTES, encode, failure, fitted, write

DIGEST = "sha256:" + "4f" * 32


def exit_row(layer: int, prompts: int, millibits: int) -> dict[str, Any]:
    return {
        "layer": layer,
        "millibits": millibits * prompts,
        "agreementPercent": 64,
        "firstAgreesPercent": 54,
        "eceMilli": 121,
        "meanConfidenceMilli": 301,
        "promptMillibits": [millibits + index for index in range(prompts)],
    }


def quality(bundles: int, layers: tuple[int, ...], prompts: int = 64) -> dict[str, Any]:
    """Prompts of about 90 tokens at 5 bits each; deeper exits take fewer bits."""
    return {
        "schema": "helios-result/1",
        "kind": "quality",
        "promptsDigest": DIGEST,
        "prompts": prompts,
        "tokens": 90 * prompts,
        "bytes": 400 * prompts,
        "promptBytes": [400] * prompts,
        "rows": [
            {
                "candidate": f"candidate-{index}",
                "exitsDigest": DIGEST,
                "exits": [exit_row(layer, prompts, 480_000 - 1000 * layer) for layer in (*layers, 30)],
            }
            for index in range(bundles)
        ],
    }


def kept(document: dict[str, Any]) -> list[list[int]]:
    """Per row: the layers whose per-prompt bits are there."""
    return [[e["layer"] for e in row["exits"] if e.get("promptMillibits")] for row in document["rows"]]


@pytest.mark.parametrize(
    ("bundles", "layers", "expected"),
    [
        (1, (24, 27), [[24, 27, 30]]),
        (2, (24, 27), [[24, 27, 30], [24, 27]]),
        (3, (24, 27), [[27, 30], [27], [27]]),
        (1, (4, 8, 12, 16, 20, 24), [[20, 24, 30]]),
    ],
)
def test_64_prompts_fit_a_termination_message(
    bundles: int, layers: tuple[int, ...], expected: list[list[int]]
) -> None:
    whole = quality(bundles, layers)
    document = fitted(whole)
    assert len(encode(document)) <= LIMIT_BYTES
    assert kept(document) == expected
    assert kept(whole) == [[*layers, 30]] * bundles  # the original is left alone


def test_totals_stay_when_all_else_goes() -> None:
    document = fitted(quality(3, (24, 27), prompts=500))
    assert kept(document) == [[], [], []]
    assert [e["millibits"] for e in document["rows"][0]["exits"]] == [
        e["millibits"] for e in quality(3, (24, 27), prompts=500)["rows"][0]["exits"]
    ]


def test_the_operator_reads_a_thinned_document_as_if_it_were_whole() -> None:
    document = fitted(quality(2, (24, 27), prompts=72))
    assert kept(document)[1][-1] != 30
    candidates = {f"candidate-{index}": Candidate(f"candidate-{index}", "file:///m") for index in range(2)}
    rows = results.quality(results.read(encode(document).decode()), candidates, datetime.now(UTC))
    assert rows[1].exits[-1].prompt_millibits == rows[0].exits[-1].prompt_millibits != ()


def test_too_many_candidates_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="Profile fewer candidates"):
        fitted(quality(12, (8, 16, 24)))


def test_timing_gives_up_its_points_and_never_its_fit() -> None:
    document = {
        "schema": "helios-result/1",
        "kind": "timing",
        "fit": {"stepNs": 1},
        "points": [{"rows": 1}] * 600,
    }
    assert fitted(document) == {"schema": "helios-result/1", "kind": "timing", "fit": {"stepNs": 1}}


def test_a_failure_names_field_problem_and_fix() -> None:
    error = CheckpointError("uri", "is missing", "Put it there")
    document = failure("timing", error)
    assert document["error"] == {"field": "uri", "problem": "is missing", "fix": "Put it there"}
    assert results.failure(results.read(encode(document).decode())) == str(error)


def test_a_document_is_written_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "result.json"
    write(target, quality(1, (24,)))
    write(target, quality(2, (24,)))
    assert json.loads(target.read_text()) == quality(2, (24,))
    assert [path.name for path in target.parent.iterdir()] == ["result.json"]
    with pytest.raises(InvalidRequest, match=r"^result: cannot be written"):
        write(target / "below-a-file", quality(1, ()))

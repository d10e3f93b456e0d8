"""The result document: complete where it fits, thinner but never wrong where it does not, written whole or
not."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from helios_contract.results import (
    CandidateQuality,
    ExitQuality,
    Failure,
    Quality,
    Result,
    StepTimeFit,
    Timing,
    TimingPoint,
)
from helios_operator.api import results
from helios_operator.api.types import Candidate
from helios_server.errors import CheckpointError, InvalidRequest
from helios_server.profile.document import LIMIT_BYTES, encode, failure, fitted, write

DIGEST = "sha256:" + "4f" * 32


def exit_row(layer: int, prompts: int, millibits: int) -> ExitQuality:
    bits = tuple(millibits + index for index in range(prompts))
    return ExitQuality(layer, millibits * prompts, 64, 54, 121, 301, bits)


def quality(bundles: int, layers: tuple[int, ...], prompts: int = 64) -> Quality:
    """Prompts of about 90 tokens at 5 bits each; deeper exits take fewer bits."""
    exits = tuple(exit_row(layer, prompts, 480_000 - 1000 * layer) for layer in (*layers, 30))
    return Quality(
        prompts_digest=DIGEST,
        prompts=prompts,
        tokens=90 * prompts,
        bytes=400 * prompts,
        prompt_bytes=(400,) * prompts,
        rows=tuple(CandidateQuality(f"candidate-{index}", DIGEST, exits) for index in range(bundles)),
    )


def kept(document: Result) -> list[list[int]]:
    """Per row: the layers whose per-prompt bits are there."""
    assert isinstance(document, Quality)
    return [[e.layer for e in row.exits if e.prompt_millibits] for row in document.rows]


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
    assert isinstance(document, Quality)
    totals = [[e.millibits for e in each.rows[0].exits] for each in (document, quality(3, (24, 27), 500))]
    assert totals[0] == totals[1]


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
    law = StepTimeFit(1, 2, 3, 4)
    points = (TimingPoint(24, 1, 64, 1, "bare", 6926, 7636),) * 600
    assert fitted(Timing(fit=law, points=points)) == Timing(fit=law)


def test_a_failure_names_field_problem_and_fix() -> None:
    error = CheckpointError("uri", "is missing", "Put it there")
    document = failure("timing", error)
    assert document == Failure("timing", "uri", "is missing", "Put it there")
    assert results.failure(results.read(encode(document).decode())) == str(error)


def test_a_document_is_written_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "result.json"
    write(target, quality(1, (24,)))
    write(target, quality(2, (24,)))
    assert results.read(target.read_text()) == quality(2, (24,))
    assert [path.name for path in target.parent.iterdir()] == ["result.json"]
    with pytest.raises(InvalidRequest, match=r"^result: cannot be written"):
        write(target / "below-a-file", quality(1, ()))

"""`--request-log`: what each request was, never what it said; whatever befalls the file harms no request."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from helios_contract.limits import Audit
from helios_contract.request_log import AuditLine, RequestLine, from_json
from helios_contract.serves import Bundle
from helios_contract.telemetry import AuditRow
from helios_server import serve
from helios_server.errors import InvalidRequest
from helios_server.rpc.request_log import RequestLog

from tests.rpc.pods import LAYERS, eventually, serving

SECRET = "A prompt that nobody may find again, however long one looks for it"


async def test_lengths_and_audits_are_written_and_no_text(tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "requests.jsonl"
    audit = Audit(percent=100, bundles=(Bundle("tiny"),))
    async with serving(tiny, request_log=RequestLog(file), audit=audit) as pod:
        answers = [await pod.generate(SECRET, max_tokens=5) for _ in range(3)]

        async def audited() -> bool:
            return len((await pod.telemetry()).audits) == 3

        await eventually(audited)
    text = file.read_text()
    lines = [from_json(line) for line in text.splitlines()]
    requests = [line for line in lines if isinstance(line, RequestLine)]
    audits = [line for line in lines if isinstance(line, AuditLine)]
    assert [line.request for line in requests] == [1, 2, 3]
    for line, answer in zip(requests, answers, strict=True):
        assert line.prompt_tokens == answer.usage.prompt_tokens
        assert (line.output_tokens, line.layer_budget) == (5, LAYERS)
        assert line.first_token_seconds is not None
        assert 0 < line.first_token_seconds <= line.seconds
    assert sorted(line.request for line in audits) == [1, 2, 3]
    assert {line.boot_id for line in lines} == {requests[0].boot_id} != {""}
    assert "prompt that nobody" not in text
    assert answers[0].text not in text
    assert not any(word in json.loads(text.splitlines()[0]) for word in ("text", "prompt", "outputIds"))


async def test_a_full_disk_is_told_once_and_harms_no_request(
    tiny: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        async with serving(tiny, request_log=RequestLog(Path("/dev/full"))) as pod:
            for _ in range(3):
                assert (await pod.generate(max_tokens=2)).usage.completion_tokens == 2
    told = [record for record in caplog.records if "lines are left out" in record.message]
    assert len(told) == 1
    assert "No space left" in told[0].message


def row(request: int) -> AuditRow:
    return AuditRow(request, 60, 240, 200_000, {("sha256:heads", 2): (210_000, 50)})


def test_the_file_is_bounded_and_its_lines_stay_whole(tmp_path: Path) -> None:
    file, most = tmp_path / "requests.jsonl", 2000
    log = RequestLog(file, "boot", most)
    for begin in range(0, 300, 10):
        log.audits([row(n) for n in range(begin, begin + 20)])
    log.close()
    kept = [*(tmp_path / "requests.jsonl.1").read_text().splitlines(), *file.read_text().splitlines()]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["requests.jsonl", "requests.jsonl.1"]
    assert all(path.stat().st_size <= most for path in tmp_path.iterdir())
    found = [from_json(line) for line in kept]
    assert [line.row for line in found if isinstance(line, AuditLine)] == [
        row(n) for n in range(310 - len(found), 310)
    ]  # each once, the newest last


def test_lines_are_appended_to_those_of_the_run_before(tmp_path: Path) -> None:
    for boot in ("one", "two"):
        log = RequestLog(tmp_path / "log", boot)
        log.audits([row(1)])
        log.close()
    assert [from_json(line).boot_id for line in (tmp_path / "log").read_text().splitlines()] == ["one", "two"]


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"request-log: .*none/log cannot be written .*; Give a file"):
        RequestLog(tmp_path / "none" / "log")


def test_the_argument_is_read() -> None:
    told = serve.parse(["--model", "file:///m", "--request-log", "/tmp/requests.jsonl"])
    assert told.request_log == Path("/tmp/requests.jsonl")

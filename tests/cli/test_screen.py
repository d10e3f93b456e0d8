"""What `helios up` prints of a record: ids last, and once each what one may do next."""

from __future__ import annotations

import pytest
from helios_cli.verbs.up import Screen
from helios_operator.local.events import Record


def shown(capsys: pytest.CaptureFixture[str], *records: tuple[str, str, str, str]) -> list[str]:
    screen = Screen()
    for source, about, reason, message in records:
        screen.show(Record("2026-01-02T03:04:05Z", "chat", source, about, "Normal", reason, message))
    return [line[10:] for line in capsys.readouterr().out.splitlines()]


def test_ids_stand_last(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(
        capsys,
        ("decision", "Start Timing job t-96d26a9b7309", "ProfilingStarted", "Timing of smollm2"),
        ("job", "t-96d26a9b7309", "Progress", "Timing: smollm2: 25 %, about 30 s left"),
        ("pod", "chat-1-0", "Ready", "serves on 127.0.0.1:1"),
        ("event", "chat", "ScaledUp", "one more"),
    )
    assert lines == [
        "Start Timing job: ProfilingStarted  Timing of smollm2  (t-96d26a9b7309)",
        "Progress  Timing: smollm2: 25 %, about 30 s left  (t-96d26a9b7309)",
        "Ready  serves on 127.0.0.1:1  (chat-1-0)",
        "chat: ScaledUp  one more",
    ]


def test_what_comes_next_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    serves = ("event", "chat", "MinimumReplicasServing", "Available=True: 1/1 pods serve smollm2")
    waits = ("event", "chat", "WaitingForPrompts", "live prompts are being collected: the first 32")
    current = ("event", "chat", "AllCandidatesCurrent", "Profiled=True: 1 of 1 profiles current")
    lines = shown(capsys, serves, waits, serves, current)
    assert [line for line in lines if line.startswith("next")] == [
        'next  helios generate "Call me Ishmael." --name chat --max-tokens 40',
        'next  send prompts: helios generate "..." --name chat, or any client',
        "next  helios why chat",
    ]

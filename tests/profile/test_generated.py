"""The check on generated text: what it tells, and when it says that it was not made."""

from __future__ import annotations

from pathlib import Path

import pytest
from helios_server.profile import main

from tests.checkpoints import make_checkpoint
from tests.profile.planted import TEXTS, idle_after


def checked(model: Path, folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    """What the run says on stderr."""
    (folder / "prompts").write_text("\n".join(text.replace("\n", " ") for text in TEXTS))
    arguments = [
        "--kind",
        "quality",
        "--model",
        f"file://{model}",
        "--exit-layers",
        "2",
        "--dtype",
        "float32",
    ]
    assert main([*arguments, "--prompts-file", str(folder / "prompts"), *more]) == 0
    return capsys.readouterr().err


def test_exits_are_asked_for_the_tokens_that_full_depth_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = idle_after(tmp_path / "model", layer=2)
    assert "generated text, 72 tokens: own-head agrees 100% at 2 layers" in checked(model, tmp_path, capsys)
    assert not any(text in checked(model, tmp_path, capsys) for text in TEXTS)


def test_a_job_that_shall_be_rapid_does_without(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = make_checkpoint(tmp_path / "model", layers=3)
    result = ("--result", str(tmp_path / "result.json"))
    assert "generated text" not in checked(model, tmp_path, capsys, *result)
    assert "generated text" in checked(model, tmp_path, capsys, *result, "--search", "thorough")


def test_a_model_that_does_not_fit_is_not_checked_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_checkpoint(tmp_path / "model", layers=3)
    monkeypatch.setattr("helios_server.profile.generated.anonymous_bytes", lambda: 9 * 2**30)
    said = checked(model, tmp_path, capsys, "--memory-mib", "8192")
    assert "generated text: not checked, the whole model takes 92" in said

"""Fixtures of the first run on tiny models; and no cluster but a test's own."""

from pathlib import Path

import pytest

from tests.local.world import first_run, no_process_is_left, state, volumes

__all__ = ["first_run", "no_process_is_left", "state", "volumes"]


@pytest.fixture(autouse=True)
def no_kubeconfig(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "no-kubeconfig"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

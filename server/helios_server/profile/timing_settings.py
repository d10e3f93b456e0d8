"""How a Timing row is to be measured, as a Job or a person asks for it.

Made by `command.py`, read by `timing.py` and by what it measures with. It measures nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from helios_server.engine.memory import allowed_bytes


@dataclass(frozen=True, slots=True)
class TimingSettings:
    """How to measure. memory_mib: the process's limit, None for all there is; max_context: tokens to be
    served, None for the model's; search: rapid | thorough; watts: of one busy core, where no
    energy counter exists."""

    device: str = "cpu"
    dtype: str | None = None
    memory_mib: int | None = None
    max_context: int | None = None
    search: str = "rapid"
    watts: float | None = None

    def limit_bytes(self) -> int:
        """What may be held: as given, and no more than the container, the machine or the accelerator has."""
        return allowed_bytes(self.memory_mib, torch.device(self.device))

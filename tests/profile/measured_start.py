"""Run in a process of its own: measures memory as a Timing Job does. Argument: checkpoint. Prints facts."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import torch
from helios_contract.serves import REFERENCE
from helios_server.engine import host_memory
from helios_server.profile.candidates import Candidate
from helios_server.profile.opened import open_backbone
from helios_server.profile.step_bench import Bench
from helios_server.profile.timing_settings import TimingSettings


def main(checkpoint: str) -> None:
    host_memory.share_one_heap()  # as `helios profile` does
    torch.set_num_threads(1)
    opened = open_backbone([Candidate("own", f"file://{checkpoint}")], None)
    print(json.dumps(asdict(Bench.open(opened, TimingSettings(dtype="float64"), REFERENCE).facts)))


if __name__ == "__main__":
    main(sys.argv[1])

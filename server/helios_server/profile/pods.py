"""What a serving process holds beside its model, held in this one while memory is measured.

Called by `timing.py`: rows are foretold from a profile before there is a pod to ask, and must be those that
it will serve. It opens no door.
"""

from __future__ import annotations

import importlib

from helios_server.models.checkpoint import Checkpoint
from helios_server.models.tokenizer import Tokenizer

_DOORS = "helios_server.rpc.server"


def hold_what_pods_hold(checkpoint: Checkpoint) -> Tokenizer:
    """The code of the doors, for good, and the model's tokenizer, for as long as the caller keeps it. Raises
    HeliosError for a tokenizer that no pod could open."""
    importlib.import_module(_DOORS)  # not at the top: whoever measures something else need not wait for it
    return Tokenizer.open(checkpoint.path)

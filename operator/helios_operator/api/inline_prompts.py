"""The prompts that a spec holds itself, as the document that Jobs read them from; and whether it fits.

Called by `api.validation` on behalf of both ports, and by `render.configmap`, which writes the document. The
CRD bounds the prompts' bytes; what JSON makes of them, no rule there can count.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from helios_contract.problems import Problem

FIELD = "spec.profiling.prompts.inline"
MOST_BYTES = 1024 * 1024 - 1024
"""Of the document: what an API server lets a ConfigMap hold, less its key's name and some."""


def document(prompts: Sequence[str]) -> str:
    """A JSON list. Quotes and ends of lines take two bytes there, other control characters six."""
    return json.dumps(prompts, ensure_ascii=False)


def problems(admitted: Mapping[str, Any]) -> list[Problem]:
    """Of an object that the schema admits."""
    prompts = ((admitted["spec"].get("profiling") or {}).get("prompts") or {}).get("inline") or ()
    size = len(document(prompts).encode(errors="surrogatepass"))
    if size <= MOST_BYTES:
        return []
    problem = f"take {size:,} bytes as JSON, and a ConfigMap holds {MOST_BYTES:,}"
    return [Problem(FIELD, problem, "give fewer, or put them into a ConfigMap and name it in configMapRef")]

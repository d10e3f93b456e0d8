"""The command lines of pods and Jobs: what `helios serve` and `helios profile` are told, wherever they run.

Called by `deployment` and `job` for containers, and by the runtime of one machine for processes. Words after
`helios`; what only one of them has (a file for the ports, the watts of a machine) follows, as the last word
counts. It must not know what runs them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from helios_contract.serves import Precision

from helios_operator.api import ports
from helios_operator.api.types import Candidate, Deployment
from helios_operator.decide.snapshot import JobKind, JobSpec


@dataclass(frozen=True)
class Place:
    """Where a process finds what it needs: the folder of the volumes, the file with the Control ports' token,
    the pods' device and the dtype on it."""

    volumes: str
    token_file: str
    device: str
    dtype: str


@dataclass(frozen=True)
class Listening:
    """Port 0: any free one. http: OpenAI's API, None for none."""

    host: str
    generation: int
    control: int
    metrics: int
    http: int | None


@dataclass(frozen=True)
class Access:
    """Files of a certificate, its key and the CA of clients' certificates, and the folder with callers'
    tokens. Empty: without."""

    tls_cert: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""
    auth_tokens: str = ""


OPEN = Access()
"""Clear text, and everybody."""


def serve(
    place: Place, limits: str, model_name: str, at: Listening, drain_seconds: int, max_context: int | None
) -> list[str]:
    """`limits`: the file with the revision's document; `max_context`: tokens, None for the model's."""
    return [
        "serve",
        *("--limits", limits),
        *("--model-name", model_name),
        *("--host", at.host),
        *("--port", str(at.generation)),
        *("--control-port", str(at.control)),
        *("--metrics-port", str(at.metrics)),
        *_http(at.http),
        *("--control-token-file", place.token_file),
        *("--volumes", place.volumes),
        *("--device", place.device),
        *("--dtype", place.dtype),
        *("--drain-timeout", str(drain_seconds)),
        *_max_context(max_context),
    ]


def access(given: Access) -> list[str]:
    """What `serve` is told beside: nothing where it is open."""
    words = {
        "--tls-cert": given.tls_cert,
        "--tls-key": given.tls_key,
        "--tls-client-ca": given.tls_client_ca,
        "--auth-tokens": given.auth_tokens,
    }
    return [word for option, file in words.items() if file for word in (option, file)]


def profile(
    place: Place,
    asked: JobSpec,
    hd: Deployment,
    result: str,
    prompts: str | None,
    prompts_from: str | None,
    *,
    is_limited: bool = True,
) -> list[str]:
    """`result`: the file to write; `prompts`: a file of given ones, or of tasks; `prompts_from`: host:port of
    the Control port that holds live ones. `is_limited` False: `limits.memoryMiB` is of a device that it does
    not use."""
    workload, device = hd.spec.workload, "cpu" if runs_on_cpu(asked) else place.device
    memory_mib = hd.spec.limits.memory_mib if is_limited else None
    return [
        "profile",
        *("--kind", asked.kind.value.lower()),
        *("--candidates", candidates(asked.candidates)),
        *_prompts(asked, place, prompts, prompts_from),
        *_precisions(asked),
        *_tasks(asked, prompts),
        *(("--memory-mib", str(memory_mib)) if memory_mib else ()),
        *_max_context(hd.spec.limits.max_context_tokens),
        *("--isl", str(workload.isl), "--osl", str(workload.osl)),
        *("--search", hd.spec.profiling.search_strategy),
        *("--device", device),
        *(("--dtype", place.dtype) if device == place.device else ()),
        *("--volumes", place.volumes),
        *("--result", result),
    ]


def _http(port: int | None) -> tuple[str, ...]:
    """Where it is the server's own default nothing is said, so that one of the release before understands
    it."""
    word = {None: "0", 0: "free"}.get(port, str(port))
    return () if port == ports.HTTP else ("--http-port", word)


def _max_context(tokens: int | None) -> tuple[str, ...]:
    return ("--max-context", str(tokens)) if tokens else ()


def runs_on_cpu(asked: JobSpec) -> bool:
    """Though the pods may ask for an accelerator. An Inspect reads files, and computes nothing."""
    return asked.on_cpu or asked.kind is JobKind.INSPECT


def candidates(those: Iterable[Candidate]) -> str:
    """What `--candidates` reads."""
    return json.dumps([candidate_document(candidate) for candidate in those])


def candidate_document(candidate: Candidate) -> dict[str, Any]:
    """What says which model, and nothing of budgets."""
    document = {
        "name": candidate.name,
        "uri": candidate.uri,
        "revision": candidate.revision,
        "exits": candidate.exits,
        "exitLayers": list(candidate.exit_layers),
    }
    return {field: value for field, value in document.items() if value}


def _precisions(asked: JobSpec) -> tuple[str, ...]:
    """Where it is the reference alone nothing is said, so that one of the release before understands it."""
    if asked.precisions == (Precision(),):
        return ()
    return ("--precisions", ",".join(map(str, asked.precisions)))


def _tasks(asked: JobSpec, given: str | None) -> tuple[str, ...]:
    if asked.kind is not JobKind.TASKS:
        return ()
    options = [
        {
            "candidate": option.candidate,
            "layerBudget": option.layer_budget,
            "weightDtype": option.precision.weight_dtype,
            "kvCacheDtype": option.precision.kv_cache_dtype,
        }
        for option in asked.options
    ]
    words = ("--tasks-digest", asked.tasks_digest, "--options", json.dumps(options))
    return (*(("--tasks-file", given) if given else ()), *words)


def _prompts(asked: JobSpec, place: Place, prompts: str | None, prompts_from: str | None) -> list[str]:
    if asked.kind is not JobKind.QUALITY:
        return []
    source = []
    if prompts_from is not None:
        source = ["--prompts-from", prompts_from, "--control-token-file", place.token_file]
    elif prompts is not None:
        source = ["--prompts-file", prompts]
    return [*source, "--prompts-digest", asked.prompts_digest]

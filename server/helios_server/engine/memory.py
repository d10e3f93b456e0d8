"""Measures what the memory law needs to know of this process, this device and this model, and asks the law.

Called when a model is loaded and when limits change; the profiler calls `measure` for its rows. The law
itself stands in `helios_server.planning.memory`: there must be no second formula for capacity here.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from helios_contract.limits import Limits
from helios_contract.results import MemoryFacts
from helios_contract.serves import REFERENCE, Precision

from helios_server.engine import host_memory
from helios_server.engine.heads import Heads
from helios_server.engine.kv_pool import KvPool
from helios_server.engine.limits import EngineConfig
from helios_server.engine.runner import Runner
from helios_server.engine.sampling import SamplingParams
from helios_server.engine.scheduler import Row, StepPlan
from helios_server.engine.sequence import Sequence
from helios_server.errors import OutOfMemoryBudget
from helios_server.models.attention import gather_tokens
from helios_server.models.backbone import Backbone
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.config import ModelConfig
from helios_server.models.linear import Numerics
from helios_server.models.rope import RopeTable
from helios_server.planning.memory import MIB, Capacity, capacity, limit_for_rows

logger = logging.getLogger(__name__)

ALLOCATOR_SLACK = 12 * MIB
"""What malloc keeps of freed temporaries beyond their peak; measured 9 to 11 MiB on SmolLM2-135M, whatever
the rows.
"""
_SMALL_TABLE = 16 * MIB
"""Of positions: made whatever is left, since the law says of all that is needed how much that is."""
CONTEXT_BYTES = 1024 * MIB
"""What a process holds of an accelerator beside its tensors (the context, kernels) is less. The rest that is
in use belongs to others, with whom the device is shared.
"""


def load_first_layer(
    checkpoint: Checkpoint,
    config: EngineConfig,
    asked_mib: int | None,
    precision: Precision = REFERENCE,
    *,
    native: bool = True,
) -> Backbone:
    """What tells what all layers take. asked_mib: the process's limit, None for all that there is; native
    False: torch computes, whatever is there.

    Raises OutOfMemoryBudget, before anything is read, for a context whose table of positions alone is more
    than that leaves.
    """
    model = checkpoint.config
    kernels = native and model.plain_block
    numerics = Numerics.of(config.device, config.dtype, precision=precision, native=kernels)
    there, context = _available_bytes(numerics.device), context_tokens(model, config)
    limit = min(asked_mib * MIB, there) if asked_mib else there
    left = max(0, limit - _held_bytes(numerics.device))
    need = RopeTable.bytes_of(model, numerics, context)
    if need > max(left, _SMALL_TABLE):
        raise OutOfMemoryBudget(
            "max_context",
            f"the positions of {context} tokens take {-(-need // MIB)} MiB, {left // MIB} of the limit of "
            f"{limit // MIB} MiB are left",
            f"Lower the context of {context} tokens (--max-context, limits.maxContextTokens), or raise the "
            "memory limit",
        )
    device, dtype = config.device, config.dtype
    return Backbone.load(checkpoint, 1, device, dtype, config.max_context, precision=precision, native=native)


def measure(backbone: Backbone, config: EngineConfig, beside: int = 0) -> MemoryFacts:
    """The facts of a backbone with at least one layer loaded and nothing else of size in this process, but
    for weights of `beside` bytes.

    A step runs first, so that what the kernels keep for good (threads, work space) counts as held at the
    start.
    """
    _warm_up(backbone, config)
    device = backbone.numerics.device
    tensors = _with_tables(backbone.resident_bytes + beside, device)
    return MemoryFacts(
        process_start_bytes=max(0, _held_bytes(device) - tensors),
        fixed_bytes=_with_tables(backbone.fixed_bytes, device),
        layer_bytes=_with_tables(backbone.layer_bytes, device),
        kv_bytes_per_token_layer=kv_bytes_per_token_layer(backbone),
        activation_bytes_per_token=activation_bytes_per_token(backbone, config),
        row_bytes=backbone.config.vocab_size * _logit_bytes(backbone),
        step_tokens=config.step_tokens,
        page_tokens=config.page_tokens,
    )


def kv_bytes_per_token_layer(backbone: Backbone) -> int:
    """As they are stored, with their units and the kernel's page tables."""
    layout = backbone.layout
    return _with_tables(-(-layout.page_bytes // layout.page_tokens), backbone.numerics.device)


def activation_bytes_per_token(backbone: Backbone, config: EngineConfig) -> int:
    """Of a step's temporaries at their peak, per new token."""
    return -(-_activation_bytes(backbone, config) // config.step_tokens)


def limit_bytes(limits: Limits, device: torch.device) -> int:
    """What the planner may spend, by these limits."""
    return allowed_bytes(limits.memory_mib, device)


def allowed_bytes(asked_mib: int | None, device: torch.device) -> int:
    """What is asked for, and no more than there is for this process; all of that when nothing is asked."""
    there = _available_bytes(device)
    if not asked_mib:
        return there
    if asked_mib * MIB > there:
        logger.warning("%d MiB asked for, %s has %d MiB for this process", asked_mib, device, there // MIB)
    return min(asked_mib * MIB, there)


def accelerator_bytes(device: torch.device) -> int:
    """All memory of an accelerator, or of the slice of one that this process sees; 0 for a CPU."""
    return 0 if device.type == "cpu" else int(torch.cuda.mem_get_info(device)[1])


@dataclass(frozen=True)
class MemoryPlan:
    """What fits under the limits.

    layers; rows; pages: of the KV pool; capacity: the law's answer, in bytes.
    """

    layers: int
    rows: int
    pages: int
    capacity: Capacity


def plan_memory(
    facts: MemoryFacts,
    limits: Limits,
    layers: int,
    context: int,
    limit: int,
    exit_bytes: int,
    audit_bytes: int,
) -> MemoryPlan:
    """Asks the law. Raises OutOfMemoryBudget, with what is needed and the limit, when not one request fits.

    layers: the budget; context: tokens that one request may have; limit, exit_bytes, audit_bytes: bytes.
    """
    tokens = min(limits.tokens_per_request, context)
    fits = capacity(
        facts,
        limit_bytes=limit,
        layers=layers,
        tokens_per_request=tokens,
        exit_bytes=exit_bytes,
        audit_bytes=audit_bytes,
        max_rows=min(limits.max_batch_size or facts.step_tokens, facts.step_tokens),
    )
    if not fits.rows:
        needed = limit_for_rows(
            facts,
            layers=layers,
            rows=1,
            tokens_per_request=tokens,
            exit_bytes=exit_bytes,
            audit_bytes=audit_bytes,
        )
        asked = f"one request of {tokens} tokens at {layers} layers needs {-(-needed // MIB)} MiB"
        raise OutOfMemoryBudget(
            "limits.memory_mib",
            f"{asked}, the limit is {limit // MIB} MiB",
            "Raise the limit, or lower the layer budget, tokens_per_request or the context of "
            f"{context} tokens (--max-context, limits.maxContextTokens)",
        )
    usable = fits.rows * -(-context // facts.page_tokens)  # pages beyond are of no use to so many rows
    return MemoryPlan(layers, fits.rows, min(fits.tokens // facts.page_tokens, usable), fits)


def context_tokens(model: ModelConfig, config: EngineConfig) -> int:
    """Tokens of prompt and output that one request may have."""
    return model.context(config.max_context)


def _warm_up(backbone: Backbone, config: EngineConfig) -> None:
    """Runs the first layer on a full step, of as many prompts as that takes."""
    most = min(config.step_tokens, context_tokens(backbone.config, config))
    counts = [min(most, config.step_tokens - at) for at in range(0, config.step_tokens, most)]
    pages = -(-most // config.page_tokens)
    pool = KvPool(backbone.config, backbone.numerics, 1, pages * len(counts), config.page_tokens)
    rows = []
    for index, count in enumerate(counts):
        sequence = Sequence("warm-up", (0,) * count, SamplingParams(), max_tokens=1)
        sequence.admit(1)
        sequence.pages = list(range(index * pages, (index + 1) * pages))
        rows.append(Row(sequence, 0, count, samples=not index))
    Runner(backbone, Heads(backbone, ()), pool, "").run(StepPlan(tuple(rows)))


def _held_bytes(device: torch.device) -> int:
    """Memory in use that will not be given back."""
    if device.type == "cpu":
        host_memory.trim()
        return host_memory.anonymous_bytes() + host_memory.page_table_bytes()
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    return own_bytes(total - free, torch.cuda.memory_reserved(device))


def own_bytes(used: int, reserved: int) -> int:
    """The part of this process in what is in use on an accelerator. reserved: for its tensors."""
    return min(used, reserved + CONTEXT_BYTES)


def _available_bytes(device: torch.device) -> int:
    """The container's or the machine's memory; of an accelerator what no other process holds."""
    if device.type == "cpu":
        return host_memory.limit_bytes()
    free, total = torch.cuda.mem_get_info(device)
    return int(free) + own_bytes(total - free, torch.cuda.memory_reserved(device))


def _with_tables(nbytes: int, device: torch.device) -> int:
    """With the kernel's page tables, which count against a limit too: 8 bytes for each 4 KiB on the CPU."""
    return nbytes + nbytes // 512 if device.type == "cpu" else nbytes


def _activation_bytes(backbone: Backbone, config: EngineConfig) -> int:
    """Peak of a step's temporaries beside the logits, from the shapes of the decoder block and of the
    attention. What the native kernels work in they keep: the warm-up has counted it as held.
    """
    model, size = backbone.config, backbone.numerics.activations.itemsize
    picking = 8 * model.vocab_size * 8  # one row being filtered, its noise in float64
    slack = ALLOCATOR_SLACK if backbone.numerics.device.type == "cpu" else 0
    if backbone.is_native:
        states = 3 * model.hidden_size  # the step's, those that sample, and their norms
        return config.step_tokens * size * states + picking + slack
    d, heads_out, inner = model.hidden_size, model.q_size + 2 * model.kv_size, model.intermediate_size
    mlp = 4 * d + 4 * inner  # residuals, norm and its float copy; gate and up, activated gate, their product
    attention = 4 * d + 2 * heads_out + model.q_size
    layer = config.step_tokens * size * max(mlp, attention)
    context = context_tokens(backbone.config, config)
    stored = 1 + 2 * max(size, 4) if backbone.layout.has_units else 0  # elements, and they and a product wide
    gathered = 2 * model.kv_size * (size + stored) * max(gather_tokens(backbone.numerics.device), context)
    mask = config.step_tokens * context * (size + 1) * (2 if model.sliding else 1)
    return layer + max(gathered + mask, picking, backbone.widening_bytes) + slack


def _logit_bytes(backbone: Backbone) -> int:
    return 8 if backbone.numerics.activations == torch.float64 else 4

"""The same model in another precision: what can be said before anything is let go, and keys and values that
change while the weights stay.

Called by `changes.py`, in its thread. It publishes nothing. That layers are read and exchanged one by one is
`serving.load_model`'s, with `Kept`.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from helios_contract.limits import Limits
from helios_contract.results import MemoryFacts

from helios_server.engine import host_memory
from helios_server.engine.heads import check_bundles, load_heads
from helios_server.engine.limits import EngineConfig, depths
from helios_server.engine.memory import (
    MemoryPlan,
    activation_bytes_per_token,
    kv_bytes_per_token_layer,
    limit_bytes,
    plan_memory,
)
from helios_server.engine.serving import Loaded, Model, Serving, check_same, loaded
from helios_server.models.backbone import Backbone
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.reading import reading
from helios_server.models.shapes import layer_shapes

_BITS = {"int8": 8, "int4": 4}
"""Of an element, without units and what fills up a matrix: no precision takes less."""


def foreseen(serving: Serving, limits: Limits) -> MemoryPlan:
    """What will fit at most, from the sizes of the model, or from what it took when it served in this
    precision before. Raises HeliosError where not one request fits, or files are not those that served.

    Nothing is loaded: beside a full cache there is no memory for it.
    """
    model, backbone, config = serving.model, serving.weights.backbone, serving.config
    *_, layers = depths(limits, model.config.num_layers)
    facts = serving.known.get((model.fingerprint, limits.precision)) or _least(backbone, model, limits)
    limit = limit_bytes(limits, backbone.numerics.device)
    plan = plan_memory(facts, limits, layers, model.context, limit, 0, 0)
    checkpoint = backbone.checkpoint
    with reading(limits.model_uri):
        if limits.weight_dtype != model.precision.weight_dtype:
            checkpoint = Checkpoint.open(checkpoint.path, checkpoint.named)
            check_same(checkpoint, model)
        check_bundles(limits, checkpoint, serving.weights.heads, config.volumes, config.offline)
    return plan


def hold_otherwise(config: EngineConfig, limits: Limits, served: Model, backbone: Backbone) -> Loaded:
    """Weights as they are, keys and values in another precision; layers are read where the budget rises."""
    other = backbone.in_precision(limits.precision)
    facts = replace(
        served.facts,
        kv_bytes_per_token_layer=kv_bytes_per_token_layer(other),
        activation_bytes_per_token=activation_bytes_per_token(other, config),
    )
    model = replace(served, precision=limits.precision, facts=facts)
    heads, limits = load_heads(other, limits, None, volumes=config.volumes, offline=config.offline)
    plan = model.plan(limits, heads, other.numerics.device)
    other.truncate(plan.layers)
    for index in range(other.num_loaded, plan.layers):
        other.attach([other.load_layer(index)])
    host_memory.trim()
    return loaded(limits, model, other, heads, plan)


def _least(backbone: Backbone, model: Model, limits: Limits) -> MemoryFacts:
    """Less than it will take, never more."""
    other = backbone.in_precision(limits.precision)
    facts = replace(model.facts, kv_bytes_per_token_layer=kv_bytes_per_token_layer(other))
    if limits.weight_dtype == model.precision.weight_dtype:
        return facts
    published = 8 * (1 if model.config.published else other.numerics.weights.itemsize)
    bits = _BITS.get(limits.weight_dtype, published)
    layer = sum(prod(shape) for shape in layer_shapes(model.config).values())
    table = model.config.vocab_size * model.config.hidden_size
    return replace(facts, layer_bytes=layer * bits // 8, fixed_bytes=table * bits // 8)

"""What the protocol asks of server and model beside answers: tensors, configuration, counts.

Called by `service`. It must not wait for the engine.
"""

from __future__ import annotations

from typing import cast

from helios_proto import __version__
from helios_proto.inference import open_inference_pb2 as pb
from prometheus_client import Counter, Histogram

from helios_server.engine.telemetry import ModelInfo
from helios_server.rpc.health import Health, Phase
from helios_server.rpc.oip import names
from helios_server.rpc.oip.tensors import BYTES
from helios_server.telemetry.metrics import Metrics

READY = "READY"
_NAME = "helios"
_EXTENSIONS = ("binary_tensor_data", "model_configuration", "parameters", "statistics")
"""In Triton's words."""
_LOADING = (Phase.LOADING, Phase.WARMING)


def server() -> pb.ServerMetadataResponse:
    return pb.ServerMetadataResponse(name=_NAME, version=__version__, extensions=_EXTENSIONS)


def model(name: str) -> pb.ModelMetadataResponse:
    return pb.ModelMetadataResponse(
        name=name,
        versions=[names.VERSION],
        platform=_NAME,
        inputs=[_tensor(each, kind) for each, kind in names.HEEDED.items()],
        outputs=[_tensor(each, kind) for each, kind in names.OUTPUTS.items()],
    )


def _tensor(name: str, kind: names.Kind) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(name=name, datatype=kind.datatype, shape=[_side(kind)])


def config(name: str, info: ModelInfo) -> pb.ModelConfig:
    """The same tensors; of a request's many answers, that there may be some."""
    told = pb.ModelConfig(
        name=name,
        platform=_NAME,
        backend=_NAME,
        max_batch_size=0,  # of one request; requests share a batch all the same
        model_transaction_policy=pb.ModelTransactionPolicy(decoupled=True),
    )
    for each, kind in names.HEEDED.items():
        optional = each != names.TEXT
        told.input.add(name=each, data_type=_type(kind), dims=[_side(kind)], optional=optional)
    for each, kind in names.OUTPUTS.items():
        told.output.add(name=each, data_type=_type(kind), dims=[_side(kind)])
    facts = {
        "candidate": info.candidate,
        "model_uri": info.model_uri,
        "revision": info.model_revision,
        "layer_budget": info.layer_budget,
        "total_layers": info.total_layers,
        "exit_layers": ",".join(map(str, info.exit_layers)),
        "max_context_tokens": info.max_context_tokens,
        "max_request_tokens": info.max_request_tokens,
        "weight_dtype": info.weight_dtype,
        "kv_cache_dtype": info.kv_cache_dtype,
    }
    for fact, value in facts.items():
        told.parameters[fact].string_value = str(value)
    return told


def _side(kind: names.Kind) -> int:
    return -1 if kind.many else 1


def _type(kind: names.Kind) -> pb.DataType:
    name = "STRING" if kind.datatype == BYTES else kind.datatype
    return cast(pb.DataType, pb.DataType.Value(f"TYPE_{name}"))


def index(name: str, health: Health) -> pb.RepositoryIndexResponse.ModelIndex:
    state = READY if health.ready else "LOADING" if health.phase in _LOADING else "UNAVAILABLE"
    reason = "" if health.ready else health.sentence
    return pb.RepositoryIndexResponse.ModelIndex(name=name, version=names.VERSION, state=state, reason=reason)


def statistics(name: str, metrics: Metrics) -> pb.ModelStatistics:
    """Of all doors together, since boot."""
    queued, prefill, decode = (_times(each) for each in (metrics.queue, metrics.prefill, metrics.decode))
    computed = pb.StatisticDuration(count=prefill.count, ns=prefill.ns + decode.ns)
    answered, failed = _times(metrics.e2e), pb.StatisticDuration(count=_count(metrics.request_failure))
    return pb.ModelStatistics(
        name=name,
        version=names.VERSION,
        last_inference=round(metrics.last_answer * 1000),
        inference_count=answered.count,
        execution_count=answered.count,
        inference_stats=pb.InferStatistics(
            success=answered, fail=failed, queue=queued, compute_infer=computed
        ),
    )


def _count(counter: Counter) -> int:
    return round(_sum(counter, "_total"))


def _times(histogram: Histogram) -> pb.StatisticDuration:
    return pb.StatisticDuration(
        count=round(_sum(histogram, "_count")), ns=round(_sum(histogram, "_sum") * 1e9)
    )


def _sum(metric: Counter | Histogram, suffix: str) -> float:
    """Whatever its labels."""
    samples = [sample for family in metric.collect() for sample in family.samples]
    return sum(sample.value for sample in samples if sample.name.endswith(suffix))

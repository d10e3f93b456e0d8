from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Limits(_message.Message):
    __slots__ = ("generation", "candidate", "model_uri", "model_revision", "exits_uri", "exits_digest", "layer_budget", "max_batch_size", "memory_mib", "max_queue_size", "exit_layers", "audit", "live_prompts", "breach_threshold", "tokens_per_request", "exit_mode", "weight_dtype", "kv_cache_dtype", "task_probe", "exit_threshold")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_FIELD_NUMBER: _ClassVar[int]
    MODEL_URI_FIELD_NUMBER: _ClassVar[int]
    MODEL_REVISION_FIELD_NUMBER: _ClassVar[int]
    EXITS_URI_FIELD_NUMBER: _ClassVar[int]
    EXITS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    LAYER_BUDGET_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_MIB_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUE_SIZE_FIELD_NUMBER: _ClassVar[int]
    EXIT_LAYERS_FIELD_NUMBER: _ClassVar[int]
    AUDIT_FIELD_NUMBER: _ClassVar[int]
    LIVE_PROMPTS_FIELD_NUMBER: _ClassVar[int]
    BREACH_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    TOKENS_PER_REQUEST_FIELD_NUMBER: _ClassVar[int]
    EXIT_MODE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_DTYPE_FIELD_NUMBER: _ClassVar[int]
    KV_CACHE_DTYPE_FIELD_NUMBER: _ClassVar[int]
    TASK_PROBE_FIELD_NUMBER: _ClassVar[int]
    EXIT_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    generation: int
    candidate: str
    model_uri: str
    model_revision: str
    exits_uri: str
    exits_digest: str
    layer_budget: int
    max_batch_size: int
    memory_mib: int
    max_queue_size: int
    exit_layers: _containers.RepeatedScalarFieldContainer[int]
    audit: Audit
    live_prompts: int
    breach_threshold: float
    tokens_per_request: int
    exit_mode: str
    weight_dtype: str
    kv_cache_dtype: str
    task_probe: TaskProbe
    exit_threshold: float
    def __init__(self, generation: _Optional[int] = ..., candidate: _Optional[str] = ..., model_uri: _Optional[str] = ..., model_revision: _Optional[str] = ..., exits_uri: _Optional[str] = ..., exits_digest: _Optional[str] = ..., layer_budget: _Optional[int] = ..., max_batch_size: _Optional[int] = ..., memory_mib: _Optional[int] = ..., max_queue_size: _Optional[int] = ..., exit_layers: _Optional[_Iterable[int]] = ..., audit: _Optional[_Union[Audit, _Mapping]] = ..., live_prompts: _Optional[int] = ..., breach_threshold: _Optional[float] = ..., tokens_per_request: _Optional[int] = ..., exit_mode: _Optional[str] = ..., weight_dtype: _Optional[str] = ..., kv_cache_dtype: _Optional[str] = ..., task_probe: _Optional[_Union[TaskProbe, _Mapping]] = ..., exit_threshold: _Optional[float] = ...) -> None: ...

class TaskProbe(_message.Message):
    __slots__ = ("tasks_digest", "every_seconds", "count", "passes")
    TASKS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    EVERY_SECONDS_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    PASSES_FIELD_NUMBER: _ClassVar[int]
    tasks_digest: str
    every_seconds: float
    count: int
    passes: str
    def __init__(self, tasks_digest: _Optional[str] = ..., every_seconds: _Optional[float] = ..., count: _Optional[int] = ..., passes: _Optional[str] = ...) -> None: ...

class Audit(_message.Message):
    __slots__ = ("percent", "bundles", "quality", "confidence")
    PERCENT_FIELD_NUMBER: _ClassVar[int]
    BUNDLES_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    percent: int
    bundles: _containers.RepeatedCompositeFieldContainer[Bundle]
    quality: Baseline
    confidence: Baseline
    def __init__(self, percent: _Optional[int] = ..., bundles: _Optional[_Iterable[_Union[Bundle, _Mapping]]] = ..., quality: _Optional[_Union[Baseline, _Mapping]] = ..., confidence: _Optional[_Union[Baseline, _Mapping]] = ...) -> None: ...

class Bundle(_message.Message):
    __slots__ = ("candidate", "uri", "digest")
    CANDIDATE_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    candidate: str
    uri: str
    digest: str
    def __init__(self, candidate: _Optional[str] = ..., uri: _Optional[str] = ..., digest: _Optional[str] = ...) -> None: ...

class Baseline(_message.Message):
    __slots__ = ("mean", "standard_deviation")
    MEAN_FIELD_NUMBER: _ClassVar[int]
    STANDARD_DEVIATION_FIELD_NUMBER: _ClassVar[int]
    mean: float
    standard_deviation: float
    def __init__(self, mean: _Optional[float] = ..., standard_deviation: _Optional[float] = ...) -> None: ...

class GetLimitsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetLimitsResponse(_message.Message):
    __slots__ = ("limits", "capacity")
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    limits: Limits
    capacity: Capacity
    def __init__(self, limits: _Optional[_Union[Limits, _Mapping]] = ..., capacity: _Optional[_Union[Capacity, _Mapping]] = ...) -> None: ...

class SetLimitsRequest(_message.Message):
    __slots__ = ("limits", "if_generation")
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    IF_GENERATION_FIELD_NUMBER: _ClassVar[int]
    limits: Limits
    if_generation: int
    def __init__(self, limits: _Optional[_Union[Limits, _Mapping]] = ..., if_generation: _Optional[int] = ...) -> None: ...

class SetLimitsResponse(_message.Message):
    __slots__ = ("limits", "capacity", "seconds", "reprefilled")
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    REPREFILLED_FIELD_NUMBER: _ClassVar[int]
    limits: Limits
    capacity: Capacity
    seconds: float
    reprefilled: int
    def __init__(self, limits: _Optional[_Union[Limits, _Mapping]] = ..., capacity: _Optional[_Union[Capacity, _Mapping]] = ..., seconds: _Optional[float] = ..., reprefilled: _Optional[int] = ...) -> None: ...

class Capacity(_message.Message):
    __slots__ = ("layers_loaded", "total_layers", "max_batch_size", "kv_capacity_tokens", "weight_bytes", "kv_bytes", "process_start_bytes", "activation_peak_bytes")
    LAYERS_LOADED_FIELD_NUMBER: _ClassVar[int]
    TOTAL_LAYERS_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    KV_CAPACITY_TOKENS_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_BYTES_FIELD_NUMBER: _ClassVar[int]
    KV_BYTES_FIELD_NUMBER: _ClassVar[int]
    PROCESS_START_BYTES_FIELD_NUMBER: _ClassVar[int]
    ACTIVATION_PEAK_BYTES_FIELD_NUMBER: _ClassVar[int]
    layers_loaded: int
    total_layers: int
    max_batch_size: int
    kv_capacity_tokens: int
    weight_bytes: int
    kv_bytes: int
    process_start_bytes: int
    activation_peak_bytes: int
    def __init__(self, layers_loaded: _Optional[int] = ..., total_layers: _Optional[int] = ..., max_batch_size: _Optional[int] = ..., kv_capacity_tokens: _Optional[int] = ..., weight_bytes: _Optional[int] = ..., kv_bytes: _Optional[int] = ..., process_start_bytes: _Optional[int] = ..., activation_peak_bytes: _Optional[int] = ...) -> None: ...

class GetTelemetryRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Telemetry(_message.Message):
    __slots__ = ("boot_id", "uptime_seconds", "limits", "capacity", "ready", "draining", "running", "waiting", "requests_finished", "requests_failed", "prompt_tokens", "generation_tokens", "preemptions", "batch_reached", "requests_since_change", "ttft_ms", "itl_ms", "e2e_ms", "confidence_percent", "audits", "alarms", "breaches", "prompts", "steps", "energy", "generation_tokens_per_second", "refused", "contract_version", "seconds_since_step", "tasks")
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    UPTIME_SECONDS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FINISHED_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FAILED_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PREEMPTIONS_FIELD_NUMBER: _ClassVar[int]
    BATCH_REACHED_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_SINCE_CHANGE_FIELD_NUMBER: _ClassVar[int]
    TTFT_MS_FIELD_NUMBER: _ClassVar[int]
    ITL_MS_FIELD_NUMBER: _ClassVar[int]
    E2E_MS_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_PERCENT_FIELD_NUMBER: _ClassVar[int]
    AUDITS_FIELD_NUMBER: _ClassVar[int]
    ALARMS_FIELD_NUMBER: _ClassVar[int]
    BREACHES_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    ENERGY_FIELD_NUMBER: _ClassVar[int]
    GENERATION_TOKENS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    CONTRACT_VERSION_FIELD_NUMBER: _ClassVar[int]
    SECONDS_SINCE_STEP_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    boot_id: str
    uptime_seconds: float
    limits: Limits
    capacity: Capacity
    ready: bool
    draining: bool
    running: int
    waiting: int
    requests_finished: int
    requests_failed: int
    prompt_tokens: int
    generation_tokens: int
    preemptions: int
    batch_reached: int
    requests_since_change: int
    ttft_ms: Histogram
    itl_ms: Histogram
    e2e_ms: Histogram
    confidence_percent: Histogram
    audits: _containers.RepeatedCompositeFieldContainer[AuditRow]
    alarms: _containers.RepeatedCompositeFieldContainer[Alarm]
    breaches: BreachCounter
    prompts: PromptSet
    steps: _containers.RepeatedCompositeFieldContainer[StepTiming]
    energy: Energy
    generation_tokens_per_second: float
    refused: Refusal
    contract_version: int
    seconds_since_step: float
    tasks: TaskCounts
    def __init__(self, boot_id: _Optional[str] = ..., uptime_seconds: _Optional[float] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., capacity: _Optional[_Union[Capacity, _Mapping]] = ..., ready: _Optional[bool] = ..., draining: _Optional[bool] = ..., running: _Optional[int] = ..., waiting: _Optional[int] = ..., requests_finished: _Optional[int] = ..., requests_failed: _Optional[int] = ..., prompt_tokens: _Optional[int] = ..., generation_tokens: _Optional[int] = ..., preemptions: _Optional[int] = ..., batch_reached: _Optional[int] = ..., requests_since_change: _Optional[int] = ..., ttft_ms: _Optional[_Union[Histogram, _Mapping]] = ..., itl_ms: _Optional[_Union[Histogram, _Mapping]] = ..., e2e_ms: _Optional[_Union[Histogram, _Mapping]] = ..., confidence_percent: _Optional[_Union[Histogram, _Mapping]] = ..., audits: _Optional[_Iterable[_Union[AuditRow, _Mapping]]] = ..., alarms: _Optional[_Iterable[_Union[Alarm, _Mapping]]] = ..., breaches: _Optional[_Union[BreachCounter, _Mapping]] = ..., prompts: _Optional[_Union[PromptSet, _Mapping]] = ..., steps: _Optional[_Iterable[_Union[StepTiming, _Mapping]]] = ..., energy: _Optional[_Union[Energy, _Mapping]] = ..., generation_tokens_per_second: _Optional[float] = ..., refused: _Optional[_Union[Refusal, _Mapping]] = ..., contract_version: _Optional[int] = ..., seconds_since_step: _Optional[float] = ..., tasks: _Optional[_Union[TaskCounts, _Mapping]] = ...) -> None: ...

class TaskCounts(_message.Message):
    __slots__ = ("asked", "passed")
    ASKED_FIELD_NUMBER: _ClassVar[int]
    PASSED_FIELD_NUMBER: _ClassVar[int]
    asked: int
    passed: int
    def __init__(self, asked: _Optional[int] = ..., passed: _Optional[int] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("generation", "message")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    generation: int
    message: str
    def __init__(self, generation: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class Histogram(_message.Message):
    __slots__ = ("upper_bounds", "counts", "sum")
    UPPER_BOUNDS_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    SUM_FIELD_NUMBER: _ClassVar[int]
    upper_bounds: _containers.RepeatedScalarFieldContainer[float]
    counts: _containers.RepeatedScalarFieldContainer[int]
    sum: float
    def __init__(self, upper_bounds: _Optional[_Iterable[float]] = ..., counts: _Optional[_Iterable[int]] = ..., sum: _Optional[float] = ...) -> None: ...

class AuditRow(_message.Message):
    __slots__ = ("request", "tokens", "bytes", "full_millibits", "exits", "reference")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    FULL_MILLIBITS_FIELD_NUMBER: _ClassVar[int]
    EXITS_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    request: int
    tokens: int
    bytes: int
    full_millibits: int
    exits: _containers.RepeatedCompositeFieldContainer[ExitBits]
    reference: str
    def __init__(self, request: _Optional[int] = ..., tokens: _Optional[int] = ..., bytes: _Optional[int] = ..., full_millibits: _Optional[int] = ..., exits: _Optional[_Iterable[_Union[ExitBits, _Mapping]]] = ..., reference: _Optional[str] = ...) -> None: ...

class ExitBits(_message.Message):
    __slots__ = ("digest", "layer", "millibits", "agreeing")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    MILLIBITS_FIELD_NUMBER: _ClassVar[int]
    AGREEING_FIELD_NUMBER: _ClassVar[int]
    digest: str
    layer: int
    millibits: int
    agreeing: int
    def __init__(self, digest: _Optional[str] = ..., layer: _Optional[int] = ..., millibits: _Optional[int] = ..., agreeing: _Optional[int] = ...) -> None: ...

class Alarm(_message.Message):
    __slots__ = ("kind", "direction", "at_request", "since_request", "statistic", "unix_seconds")
    KIND_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    AT_REQUEST_FIELD_NUMBER: _ClassVar[int]
    SINCE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    STATISTIC_FIELD_NUMBER: _ClassVar[int]
    UNIX_SECONDS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    direction: str
    at_request: int
    since_request: int
    statistic: float
    unix_seconds: float
    def __init__(self, kind: _Optional[str] = ..., direction: _Optional[str] = ..., at_request: _Optional[int] = ..., since_request: _Optional[int] = ..., statistic: _Optional[float] = ..., unix_seconds: _Optional[float] = ...) -> None: ...

class BreachCounter(_message.Message):
    __slots__ = ("threshold", "in_window", "window", "total")
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    IN_WINDOW_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    threshold: float
    in_window: int
    window: int
    total: int
    def __init__(self, threshold: _Optional[float] = ..., in_window: _Optional[int] = ..., window: _Optional[int] = ..., total: _Optional[int] = ...) -> None: ...

class PromptSet(_message.Message):
    __slots__ = ("digest", "prompts", "from_request", "to_request")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    FROM_REQUEST_FIELD_NUMBER: _ClassVar[int]
    TO_REQUEST_FIELD_NUMBER: _ClassVar[int]
    digest: str
    prompts: int
    from_request: int
    to_request: int
    def __init__(self, digest: _Optional[str] = ..., prompts: _Optional[int] = ..., from_request: _Optional[int] = ..., to_request: _Optional[int] = ...) -> None: ...

class StepTiming(_message.Message):
    __slots__ = ("layers", "rows", "sampled", "kv_tokens", "count", "mean_us")
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    SAMPLED_FIELD_NUMBER: _ClassVar[int]
    KV_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    MEAN_US_FIELD_NUMBER: _ClassVar[int]
    layers: int
    rows: int
    sampled: int
    kv_tokens: int
    count: int
    mean_us: float
    def __init__(self, layers: _Optional[int] = ..., rows: _Optional[int] = ..., sampled: _Optional[int] = ..., kv_tokens: _Optional[int] = ..., count: _Optional[int] = ..., mean_us: _Optional[float] = ...) -> None: ...

class Energy(_message.Message):
    __slots__ = ("source", "joules")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    JOULES_FIELD_NUMBER: _ClassVar[int]
    source: str
    joules: float
    def __init__(self, source: _Optional[str] = ..., joules: _Optional[float] = ...) -> None: ...

class GetPromptsRequest(_message.Message):
    __slots__ = ("digest",)
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    digest: str
    def __init__(self, digest: _Optional[str] = ...) -> None: ...

class GetPromptsResponse(_message.Message):
    __slots__ = ("digest", "prompts")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    digest: str
    prompts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, digest: _Optional[str] = ..., prompts: _Optional[_Iterable[str]] = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("timeout_seconds",)
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    timeout_seconds: int
    def __init__(self, timeout_seconds: _Optional[int] = ...) -> None: ...

class DrainStatus(_message.Message):
    __slots__ = ("running", "waiting", "finished")
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    running: int
    waiting: int
    finished: bool
    def __init__(self, running: _Optional[int] = ..., waiting: _Optional[int] = ..., finished: _Optional[bool] = ...) -> None: ...

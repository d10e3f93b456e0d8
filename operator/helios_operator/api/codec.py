"""The objects of the API to and from dataclasses: the contract's codec, with times and durations as the CRDs
write them.

Called by `api.parse` and `api.serialize` only. It must not validate: decoding trusts an object that the
schema admitted, but for statuses, which another release may have written.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from helios_contract.codec import Codec, Malformed, Scalar

from helios_operator.api.durations import format_duration, parse_duration
from helios_operator.api.timestamps import format_time, parse_time

__all__ = ["Malformed", "decode", "encode"]

_CODEC = Codec(
    {datetime: Scalar(parse_time, format_time), timedelta: Scalar(parse_duration, format_duration)}, crd=True
)
decode = _CODEC.decode
encode = _CODEC.encode

"""A model that is slower by so much that nobody need ask what else the machine did when it was timed."""

from __future__ import annotations

from dataclasses import replace

from helios_operator.api import parse, serialize
from helios_operator.api.rows import TimingRow
from helios_operator.cluster.kinds import Object


def slower(obj: Object, uri: str, times: int) -> Object:
    """A row of the history table; where it is the Timing of that model, its steps take so many times as
    long."""
    row = parse.profile_row(obj)
    if not isinstance(row, TimingRow) or row.identity.model_uri != uri or row.fit is None:
        return obj
    fit = row.fit
    scaled = replace(
        fit,
        step_ns=times * fit.step_ns,
        per_layer_ns=times * fit.per_layer_ns,
        per_layer_row_ns=times * fit.per_layer_row_ns,
        layer_at_ns=tuple(times * each for each in fit.layer_at_ns),
    )
    return serialize.profile(replace(row, fit=scaled))

"""What the exit mode `token` cannot have beside it, each refused by its name.

Called with the limits, wherever those are checked, and by the intake of requests. It must load nothing: how a
step runs in that mode stands in `token_exit.py`.
"""

from __future__ import annotations

import math

from helios_contract.limits import Limits
from helios_contract.serves import REFERENCE, SINGLE_TOKENS

from helios_server.errors import InvalidRequest, LimitsRefused

MOST_ROWS = 8
"""Rows of a batch: it is a baseline of small ones, and every row may leave elsewhere."""


def is_token(limits: Limits) -> bool:
    """Whether each token leaves at an exit of its own."""
    return limits.exit_mode == SINGLE_TOKENS


def check(limits: Limits) -> None:
    """Raises LimitsRefused for a threshold that is none, and for what no model can have beside the mode."""
    threshold, rows = limits.exit_threshold, limits.max_batch_size
    if not (math.isfinite(threshold) and 0 <= threshold <= 2):
        fix = "Give 0 to 2; above 1 no token leaves early"
        raise LimitsRefused("limits.exit_threshold", f"is {threshold}", fix)
    if not is_token(limits):
        _refuse(limits, "exit_threshold", threshold != 0, f"is {threshold}", "Use exit_mode 'token', or 0")
        return
    found = "is 0, what fits" if not rows else f"is {rows}"
    _refuse(limits, "max_batch_size", not 1 <= rows <= MOST_ROWS, found, f"Give 1 to {MOST_ROWS}")
    percent = limits.audit.percent
    _refuse(limits, "audit.percent", percent != 0, f"is {percent}", "Give 0: no exit is in use alone")
    for name, word in (("weight_dtype", limits.weight_dtype), ("kv_cache_dtype", limits.kv_cache_dtype)):
        _refuse(limits, name, word != getattr(REFERENCE, name), f"is '{word}'", "Use 'auto'")


def check_depths(limits: Limits, held: int, num_layers: int) -> None:
    """Raises LimitsRefused where a model of `num_layers` layers, `held` of them loaded, cannot serve so."""
    if is_token(limits):
        whole = f"Give 0 or {num_layers}: every layer is held"
        _refuse(limits, "layer_budget", held != num_layers, f"is {held}", whole)
        none_below = not any(layer < num_layers for layer in limits.exit_layers)
        _refuse(limits, "exit_layers", none_below, "names no exit below full depth", "Name one")


def check_prefixes(limits: Limits, *, reused: bool) -> None:
    """Raises InvalidRequest where what prompts begin with is computed once."""
    if is_token(limits) and reused:
        problem = "is on: in exit mode 'token' keys and values depend on where earlier tokens left"
        raise InvalidRequest("prefix-caching", problem, "Give --prefix-caching off")


def check_change(limits: Limits, current: Limits, num_layers: int, *, same_model: bool) -> None:
    """Raises LimitsRefused for a change of a serving process that running sequences could not follow.

    num_layers: of the model; same_model: whether the limits name the one that serves.
    """
    if limits.exit_mode != current.exit_mode:
        problem = f"'{limits.exit_mode}' serves on other layers than '{current.exit_mode}'"
        fix = "Start a server with --exit-mode, or keep it"
        raise LimitsRefused("limits.exit_mode", problem, fix)
    if is_token(limits):
        _refuse(limits, "model_uri", not same_model, "is another model", "Start another server")
        check_depths(limits, limits.layer_budget or num_layers, num_layers)


def check_request(limits: Limits, depth: int) -> None:
    """Raises InvalidRequest for a request that asks for a depth."""
    if is_token(limits) and depth:
        problem = f"{depth} is asked for, and in exit mode 'token' each token has a depth of its own"
        raise InvalidRequest("exit_policy.layer_budget", problem, "Use 0")


def _refuse(limits: Limits, name: str, wrong: bool, found: str, fix: str) -> None:
    if wrong:
        raise LimitsRefused(f"limits.{name}", f"{found}, with exit_mode '{limits.exit_mode}'", fix)

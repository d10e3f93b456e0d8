"""Every constant that decides is a knob of the policy: documented, read, and told to whoever reads it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from datetime import timedelta
from functools import cache, partial
from pathlib import Path

import helios_operator.decide
import pytest
from helios_operator.decide import Policy, decide
from helios_operator.decide.policy import rows
from helios_operator.decide.snapshot import Snapshot

from tests.decide.builders import inline, selected, world
from tests.decide.test_stories import condition
from tests.decide.test_triggers import with_rules
from tests.decide.truth import GENERAL

DECIDE = Path(helios_operator.decide.__file__).parent
DOCS = Path(__file__).resolve().parents[2] / "docs"
KNOBS = fields(Policy)
NOT_DECIDING = {
    "tally.MOST_PODS": "the CRD's maxItems",
    "sizes.LIMIT_BYTES": "of a termination message",
    "sizes._ENERGY_POINTS": "of a timing, at most",
    "binomial._HALVINGS": "of an interval, until a double tells no more",
    "record.KEPT_HISTORY": "the CRD's maxItems",
    "window.FIELDS": "of a cron schedule",
}
"""Numbers that stand at the head of a module, and what they are instead."""


@cache
def trees() -> dict[str, ast.Module]:
    return {str(p): ast.parse(p.read_text(encoding="utf-8")) for p in sorted(DECIDE.rglob("*.py"))}


def test_the_page_lists_every_knob() -> None:
    page = (DOCS / "decisions-explained.md").read_text(encoding="utf-8")
    assert "\n".join(rows()) in page, "paste the output of `python -m helios_operator.decide.policy`"


@pytest.mark.parametrize("knob", KNOBS, ids=lambda knob: knob.name)
def test_a_knob_says_what_it_is_and_what_fixed_it(knob) -> None:  # type: ignore[no-untyped-def]
    assert knob.metadata["unit"]
    assert knob.metadata["meaning"]
    fixed_by = knob.metadata["fixed_by"]
    number = re.match(r"\d{4}", fixed_by)
    assert number or fixed_by.startswith(("judgement", "the paper", "the design")), fixed_by
    assert not number or list((DOCS / "decisions").glob(f"{number[0]}-*.md")), fixed_by


@pytest.mark.parametrize("knob", KNOBS, ids=lambda knob: knob.name)
def test_a_knob_is_read(knob) -> None:  # type: ignore[no-untyped-def]
    assert knob.name in _read()


@cache
def _read() -> frozenset[str]:
    """The attributes that `decide` reads of anything."""
    return frozenset(
        node.attr
        for name, tree in trees().items()
        if not name.endswith("policy.py")
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
    )


def test_no_module_has_a_constant_of_its_own_that_decides() -> None:
    assert set(_constants()) == set(NOT_DECIDING)


def _constants() -> Iterator[str]:
    """Numbers and times that are bound at the head of a module."""
    for name, tree in trees().items():
        for node in tree.body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            value = getattr(node, "value", None)
            if isinstance(node, ast.Assign | ast.AnnAssign) and value is not None and _is_number(value):
                yield from (f"{Path(name).stem}.{t.id}" for t in targets if isinstance(t, ast.Name))


def _is_number(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=value):
            return isinstance(value, int | float) and not isinstance(value, bool)
        case ast.BinOp(left=left, right=right):
            return _is_number(left) and _is_number(right)
        case ast.UnaryOp(operand=operand):
            return _is_number(operand)
        case ast.Call(func=ast.Name(id="timedelta")):
            return True
    return False


def test_whoever_can_be_told_the_policy_is_told_it() -> None:
    """A default is for tests: within `decide` a call that leaves it out would not follow the knobs."""
    forgetful = [
        f"{Path(name).name}:{call.lineno} {called}"
        for name, tree in trees().items()
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and (called := _called(call, tree)) in _told()
        if not any("policy" in ast.unparse(argument) for argument in (*call.args, *call.keywords))
    ]
    assert forgetful == []


@cache
def _told() -> frozenset[str]:
    """Functions, and dataclasses, with a policy that has a default."""
    names = set()
    for tree in trees().values():
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.args.defaults:
                names |= {node.name for argument in node.args.args if argument.arg == "policy"}
            if isinstance(node, ast.ClassDef):
                names |= {
                    node.name for field in node.body if ast.unparse(field).startswith("policy: Policy =")
                }
    return frozenset(names - {"decide", "weigh", "missing", "Bench"})


def _called(call: ast.Call, tree: ast.Module) -> str:
    """What is called by its own name, or in a module that was imported."""
    imported = {a.name for node in tree.body if isinstance(node, ast.ImportFrom) for a in node.names}
    match call.func:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=ast.Name(id=module), attr=name) if module in imported:
            return name
    return ""


# -- turned --------------------------------------------------------------------------------------------------


def test_a_turned_knob_is_followed() -> None:
    """More audits than the pods keep: no alarm is ever answered."""
    made = selected(world(general=GENERAL))
    made.decide = partial(decide, policy=Policy(min_audits=1000))
    made.serve(120, "code")
    assert made.active == ("general", 24)
    assert "of 1000 audited requests" in made.status.reassessment.message


def test_colder_requests_are_waited_for_longer() -> None:
    made = with_rules(world(inline(), general=GENERAL), every_requests=40)
    made.decide = partial(decide, policy=Policy(cold_requests=300))
    selected(made)
    made.serve(60, "prose")
    assert made.status.reassessment.reason == "ColdSamples"
    assert condition(made, "SLOMet") == ("Unknown", "InsufficientData")


def test_patience_is_the_policys() -> None:
    quick, slow = world(inline(), general=GENERAL), world(inline(), general=GENERAL)
    slow.start_seconds = quick.start_seconds = 10_000
    quick.decide = partial(decide, policy=Policy(start_patience=timedelta(seconds=5)))
    for made in (quick, slow):
        made.run(60)
    assert any(row.name.startswith("t-") for row in quick.rows.values())
    assert not slow.rows


def test_the_plan_of_a_policy_does_not_touch_the_next_one() -> None:
    made = selected(world(inline(), general=GENERAL))
    snapshot: Snapshot = made.snapshot()
    plain = decide(snapshot, made.now)
    assert decide(snapshot, made.now, Policy(cold_requests=10**6)) != plain
    assert decide(snapshot, made.now) == plain

"""Every rule, when its code is deleted, fails its law. A mutant that survives is a rule that nobody holds."""

from __future__ import annotations

import inspect
import traceback
from pathlib import Path

import pytest

from tests.decide.mutations.sandbox import mutated
from tests.decide.mutations.table import MUTANTS, Mutant
from tests.decide.properties.laws import (
    ALIKE,
    GROWS,
    LAWS,
    MIXED,
    RARELY_SEEN,
    by_name,
    clocks_do_not_matter,
    make_alike,
    names_do_not_matter,
)
from tests.decide.world import World


@pytest.mark.parametrize("mutant", MUTANTS, ids=[f"{m.law}-{m.module}-{n}" for n, m in enumerate(MUTANTS)])
def test_the_law_notices(mutant: Mutant) -> None:
    decide = mutated(*mutant.edits)

    def use(made: World) -> None:
        made.decide = decide

    if mutant.law in PAIRED:
        assert PAIRED[mutant.law](use)
        return
    law = by_name(mutant.law)
    for told in law.witnesses:
        try:
            law.check(told, use)
        except AssertionError as broken:
            if complains(broken):
                return
    pytest.fail(f"survived: {mutant.edits}")


def complains(broken: AssertionError) -> bool:
    """The law itself said so, not some other check of the simulated world."""
    frames = traceback.extract_tb(broken.__traceback__)
    return Path(frames[-1].filename).parent.name == "rules"


def breaks_on_names(use) -> bool:  # type: ignore[no-untyped-def]
    def prepare(made: World) -> None:
        make_alike(made)
        use(made)

    try:
        names_do_not_matter(ALIKE, prepare)
    except AssertionError:
        return True
    return False


def breaks_on_clocks(use) -> bool:  # type: ignore[no-untyped-def]
    try:
        for told in (GROWS, RARELY_SEEN):
            clocks_do_not_matter(told, use)
    except AssertionError as broken:
        return "a pod's clock decided" in str(broken)
    return False


def breaks_on_orders(use) -> bool:  # type: ignore[no-untyped-def]
    try:
        names_do_not_matter(MIXED, use)
    except AssertionError:
        return True
    return False


PAIRED = {"names": breaks_on_names, "clocks": breaks_on_clocks, "orders": breaks_on_orders}
"""Laws of two worlds that must not differ."""


def test_every_law_has_a_mutant() -> None:
    assert {law.name for law in LAWS} <= {mutant.law for mutant in MUTANTS}


def test_the_sandbox_leaves_the_real_code_alone() -> None:
    from helios_operator.decide import decide
    from helios_operator.decide.policy import Policy

    other = mutated(("policy", "default=1.1", "default=99"))
    assert inspect.signature(other).parameters["policy"].default.margin == 99
    assert Policy().margin == 1.1
    from helios_operator.decide import decide as again

    assert again is decide

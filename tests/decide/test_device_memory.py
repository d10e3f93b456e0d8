"""An accelerator whose memory no label tells: what serves before it is measured, and what counts then."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helios_operator.decide.plan import CreateRevision
from helios_operator.decide.snapshot import Hardware
from helios_operator.decide.weigh.options import memory_mib
from helios_operator.decide.weigh.strategy import second_pod_fits

from tests.decide.builders import inline, world
from tests.decide.test_stories import condition
from tests.decide.truth import BIG, GENERAL, memory_for
from tests.decide.world import HARDWARE, World

UNLABELLED = Hardware("nvidia.com/gpu", 1, 0, "a cpu", 2, "float16")
MIB = 1 << 20


def on_an_accelerator(hardware: Hardware = UNLABELLED, found_mib: int = 0, given: int | None = None) -> World:
    made = world(inline(), general=GENERAL)
    limits = replace(made.spec.limits, memory_mib=given)
    made.spec = replace(made.spec, limits=limits)
    made.deployment = replace(made.deployment, spec=made.spec)
    made.hardware, made.accelerators_free, made.device_memory_bytes = hardware, 4, found_mib * MIB
    return made


def test_the_reference_serves_with_what_its_pod_finds_until_a_timing_job_told() -> None:
    made = on_an_accelerator(found_mib=memory_for(BIG, rows=4))
    made.run(60)
    (created,) = [action for action in made.actions if isinstance(action, CreateRevision)][:1]
    assert (created.limits.memory_mib, created.limits.max_batch_size) == (0, 0)
    assert memory_mib(made.snapshot()) == memory_for(BIG, rows=4)
    (serving,) = [r for r in made.revisions.values() if r.routed]
    assert serving.limits.memory_mib == memory_for(BIG, rows=4)
    assert serving.limits.max_batch_size > 0
    assert condition(made, "Ready")[0] == "True"


def test_where_no_job_tells_either_it_goes_on_serving_and_says_why() -> None:
    made = on_an_accelerator()
    made.run(60)
    assert made.active == ("general", 30)
    ready = next(c for c in made.status.conditions if c.type == "Ready")
    assert ready.status == "False"
    assert "how much memory a pod has is not known" in ready.message
    assert "set limits.memoryMiB" in ready.message


@pytest.mark.parametrize(
    ("labelled", "given", "found", "spent"),
    [
        (22784, None, 0, 22784),
        (22784, None, 22563, 22563),
        (0, 8000, 0, 8000),
        (0, 8000, 22563, 8000),
        (0, 40000, 22563, 22563),
        (81920, None, 9728, 9728),
        (0, None, 0, 0),
    ],
)
def test_no_more_is_spent_than_was_found(labelled: int, given: int | None, found: int, spent: int) -> None:
    made = on_an_accelerator(replace(UNLABELLED, memory_mib=labelled), found, given)
    made.run(10)
    assert memory_mib(made.snapshot()) == spent


def test_what_was_found_on_other_hardware_says_nothing() -> None:
    made = on_an_accelerator(found_mib=9728)
    made.run(10)
    made.hardware = replace(UNLABELLED, accelerator="nvidia.com/mig-1g.10gb")
    assert memory_mib(made.snapshot()) == 0


def test_a_second_pod_fits_by_accelerators_where_pods_ask_for_some() -> None:
    made = on_an_accelerator(found_mib=9728)
    made.memory_mib = 0
    fits = second_pod_fits(made.snapshot())
    assert (fits.ok, fits.message) == (True, "a second pod fits (1 of 4 free accelerators)")
    made.accelerators_free = 0
    fits = second_pod_fits(made.snapshot())
    assert (fits.ok, fits.message) == (False, "a second pod needs 1 accelerators, 0 free")


def test_on_one_machine_nothing_surges_into_memory_that_nobody_knows() -> None:
    made = on_an_accelerator()
    made.accelerators_free, made.memory_mib = None, 0
    fits = second_pod_fits(made.snapshot())
    assert not fits.ok
    assert "not known" in fits.message
    assert second_pod_fits(replace(made.snapshot(), hardware=HARDWARE, free_memory_mib=20000)).ok

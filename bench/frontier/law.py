"""What the memory law says of every combination, and how far what processes planned is from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from helios_contract.serves import Precision
from helios_server.planning.combinations import Combination, combinations
from helios_server.planning.memory import MIB, limit_mib_for_rows

from bench.frontier.front import Key, name
from bench.frontier.runs import Held, Served
from bench.frontier.subject import Subject
from bench.report import Claim, claim

Law = Mapping[Key, Combination]


def limit_mib(subject: Subject, model: Held, rows: int) -> int:
    """In which full depth holds so many rows."""
    return limit_mib_for_rows(
        model.facts, layers=subject.depths[0], rows=rows, tokens_per_request=subject.tokens
    )


def combined(subject: Subject, facts: Mapping[Precision, Held], memory_mib: int) -> Law:
    """By layers and precision, deepest first. Full depth holds no bundle."""
    found: dict[Key, Combination] = {}
    for layers in subject.depths:
        for precision, model in facts.items():
            [found[layers, precision]] = combinations(
                {precision: model.facts},
                limit_bytes=memory_mib * MIB,
                depths=(layers,),
                tokens_per_request=subject.tokens,
                exit_bytes=0 if layers == subject.depths[0] else model.exit_bytes,
                max_rows=model.facts.step_tokens,
            )
    return found


def side_by_side(law: Law, seen: Mapping[Key, Served]) -> dict[str, dict[str, int]]:
    """Rows by the law, as a process planned them, and as many as ran at once."""
    return {
        name(key): {"law": law[key].rows, "planned": one.planned_rows, "reached": one.batch_reached}
        for key, one in seen.items()
    }


def claims(memory_mib: int, law: Law, seen: Mapping[Key, Served]) -> Iterator[Claim]:
    """How far what processes planned is from the law: in rows, in per cent of the law's rows (of the
    combinations that hold any), and in keys and values' share of the memory."""
    rows = [abs(one.planned_rows - law[key].rows) for key, one in seen.items()]
    held = [key for key in seen if law[key].rows]
    percents = [100 * abs(seen[key].planned_rows / law[key].rows - 1) for key in held]
    shares = [
        abs(one.planned_tokens - law[key].tokens) * law[key].kv_bytes_per_token / (memory_mib * MIB)
        for key, one in seen.items()
    ]
    yield claim(f"rows-off-the-law-in-{memory_mib}-mib", rows, "rows")
    if percents:
        yield claim(f"rows-percent-off-the-law-in-{memory_mib}-mib", percents, "percent")
    yield claim(f"memory-off-the-law-in-{memory_mib}-mib", [100 * share for share in shares], "percent")

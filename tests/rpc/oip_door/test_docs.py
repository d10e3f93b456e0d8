"""docs/oip.md says what is so: its example runs with NVIDIA's client, its tables are the code's lists."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from helios_proto.inference import open_inference_pb2 as pb
from helios_server.rpc.oip import many, names
from helios_server.rpc.stream import MOST_UNREAD

from tests.documentation.blocks import Block
from tests.rpc.oip_door.triton import Triton
from tests.rpc.pods import Served

PAGE = (Path(__file__).parents[3] / "docs" / "oip.md").read_text()


def section(title: str) -> str:
    return PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]


def rows(text: str) -> dict[str, str]:
    """The first column's names, to the second column."""
    cells = re.findall(r"^\| (`[^|]+) \| ([^|]+) \|", text, re.MULTILINE)
    return {name: second for first, second in cells for name in re.findall(r"`(\w+)`", first)}


async def test_the_example_runs(documented: list[Block], pod: Served, triton: Triton) -> None:
    [example] = documented
    shown = await asyncio.to_thread(
        triton.run, example.text.replace("127.0.0.1:8033", f"127.0.0.1:{pod.ports.port}")
    )
    assert {line.partition(" ")[0] for line in re.findall(r"^[12] .*", shown, re.MULTILINE)} == {"1", "2"}
    assert "[6]" in shown


def test_the_tables_are_the_codes() -> None:
    inputs, _, neutral = section("Inputs").partition("**Neutral values.**")
    told = rows(inputs)
    assert set(told) == {*names.HEEDED, *names.OTHER_NAMES}
    for name, kind in names.HEEDED.items():
        assert told[name] == kind.datatype + (", any number" if kind.many else "")
    for other, name in names.OTHER_NAMES.items():
        assert f"`{name}` (`{other}`)" in inputs
    assert {name: said.replace("`", "") for name, said in rows(neutral).items()} == {
        name: str(value).removesuffix(" or null").replace("null", "null alone")
        for name, value in names.NEUTRAL.items()
    }
    assert all(f"`{name}`" in neutral for name in names.RESERVED)
    outputs = rows(section("Outputs"))
    assert {name: said.partition(",")[0] for name, said in outputs.items()} == {
        name: kind.datatype for name, kind in names.OUTPUTS.items()
    }
    many_elements = {name for name, kind in names.OUTPUTS.items() if kind.many}
    assert many_elements == {name for name, said in outputs.items() if "one per token" in said}


def test_calls_and_bounds_are_the_codes() -> None:
    service = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    calls = re.findall(r"^\| (`[^|]+) \|", section("Calls"), re.MULTILINE)
    assert {name for cell in calls for name in re.findall(r"`(\w+)`", cell)} == {
        method.name for method in service.methods
    }
    assert f"{many._MOST_OPEN:,} requests may be open" in PAGE
    assert f"of {many._MOST_OPEN_BYTES >> 20} MiB together" in PAGE
    assert f"{MOST_UNREAD:,} answers wait" in PAGE

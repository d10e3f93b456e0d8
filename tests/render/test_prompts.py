"""Inline prompts: whatever text the API admits fits into the ConfigMap that Jobs read it from."""

from __future__ import annotations

from typing import Any

import pytest
from helios_operator.api import parse
from helios_operator.api.validation import Invalid, admit
from helios_operator.render.configmap import PROMPTS_KEY, prompts_config_map

from tests.api.objects import minimal, put

_CONFIG_MAP_BYTES = 1024 * 1024
"""What an API server admits, over all keys and values."""


def _deployment(prompts: list[str]) -> Any:
    return parse.deployment(admit(put(minimal(), "spec.profiling.prompts", {"inline": prompts})))


def _is_admitted(prompts: list[str]) -> bool:
    try:
        _deployment(prompts)
    except Invalid:
        return False
    return True


@pytest.mark.parametrize(
    "character", ["x", "é", "語", "😀", '"', "\\", "\n", "\t", "\b", "\x1b", "\x00", "\x7f"]
)
@pytest.mark.parametrize("length", [2000, 8191])
def test_the_most_that_is_admitted_fits_into_a_config_map(character: str, length: int) -> None:
    prompt = "x" + character * length
    fewest, most = 1, 256
    while fewest < most:
        middle = (fewest + most + 1) // 2
        fewest, most = (middle, most) if _is_admitted([prompt] * middle) else (fewest, middle - 1)
    assert fewest * len(prompt.encode()) > 170_000, "what people write by hand is admitted"
    document = prompts_config_map(_deployment([prompt] * fewest))["data"][PROMPTS_KEY]
    assert len(document.encode()) + len(PROMPTS_KEY) <= _CONFIG_MAP_BYTES


def test_more_is_refused_with_the_way_out() -> None:
    for prompts in (["x" * 8192] * 129, ["\n" + '"' * 8000] * 80):
        with pytest.raises(Invalid) as caught:
            _deployment(prompts)
        (problem,) = caught.value.problems
        assert problem.field == "spec.profiling.prompts.inline"
        assert "bytes" in problem.problem
        assert "configMapRef" in problem.fix


def test_a_megabyte_of_ordinary_text_is_admitted() -> None:
    text = "\n".join(['She said: "The second floor, at the end of the corridor, on the left."'] * 57)
    assert _is_admitted([text] * 239)
    assert 239 * len(text) > 950_000

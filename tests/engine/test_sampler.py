"""The choice of tokens: determinism, and the filters one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helios_server.engine.limits import EngineConfig
from helios_server.engine.noise import Ids, gumbel
from helios_server.engine.request import Served
from helios_server.engine.sampler import Choice, choose
from helios_server.engine.sampling import SamplingParams
from helios_server.engine.sequence import Sequence
from helios_server.errors import RequestFailed
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine import plain_sampler
from tests.engine.helpers import prompt_of, running, send
from tests.sizes import examples

VOCABULARY = 50
SERVED = Served("c", "file:///m", "r", "f", "", 6)
EOS = (49,)


def sequence(
    request_id: str = "r", output: int = 0, prompt: tuple[int, ...] = (1, 2), **sampling: object
) -> Sequence:
    made = Sequence(request_id, prompt, SamplingParams(**sampling), 99)  # type: ignore[arg-type]
    for token in range(output):
        made.append(token, SERVED)
    return made


def draws(count: int, logits: torch.Tensor, **sampling: object) -> torch.Tensor:
    """How often each token is chosen, over seeds."""
    chosen = [
        choose(logits[None].clone(), [sequence(seed=seed, **sampling)], EOS)[0].token_id
        for seed in range(count)
    ]
    return torch.bincount(torch.tensor(chosen), minlength=len(logits)) / count


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(1)) * 2


def test_the_noise_is_a_function_of_seed_step_and_token() -> None:
    def noise(seed: int, step: int, ids: Ids = slice(None)) -> list[float]:
        return gumbel(seed, step, ids, VOCABULARY).tolist()

    assert noise(7, 3) == noise(7, 3)
    assert noise(7, 3, np.arange(10, 20)) == noise(7, 3)[10:20]
    assert noise(7, 4) != noise(7, 3) != noise(8, 3)
    many = np.array([noise(seed, step) for seed in (0, 1, 2**64 - 1) for step in range(200)])
    assert float(many.mean()) == pytest.approx(0.5772, abs=0.02)
    assert float(many.var()) == pytest.approx(1.645, abs=0.05)


def test_frequencies_follow_the_distribution(logits: torch.Tensor) -> None:
    for temperature in (0.7, 1.5):
        wanted = (logits / temperature).softmax(-1)
        assert (draws(3000, logits, temperature=temperature) - wanted).abs().max() < 0.03


def test_filters_keep_what_they_should(logits: torch.Tensor) -> None:
    probabilities = logits.softmax(-1)
    order = probabilities.argsort(descending=True)
    nucleus = int((probabilities[order].cumsum(-1) < 0.6).sum()) + 1
    kept = {"top_k": 3, "top_p": nucleus, "min_p": int((probabilities >= 0.3 * probabilities.max()).sum())}
    for name, value in (("top_k", 3), ("top_p", 0.6), ("min_p", 0.3)):
        seen = draws(800, logits, temperature=1.0, **{name: value}).nonzero().flatten()
        assert set(seen.tolist()) == set(order[: kept[name]].tolist()), name
    assert draws(50, logits, temperature=5.0, top_k=1).argmax() == order[0]


def test_greedy_takes_the_largest_and_reports_raw_probabilities(logits: torch.Tensor) -> None:
    hot = sequence("a", temperature=2.0)
    cold, warm = choose(torch.stack((logits, logits)), [sequence("b"), hot], EOS)
    probabilities = logits.softmax(-1)
    assert cold.token_id == int(logits.argmax())
    assert cold.confidence == warm.confidence == pytest.approx(float(probabilities.max()))
    assert warm.logprob == pytest.approx(float(probabilities[warm.token_id].log()), abs=1e-5)


def test_the_end_is_not_chosen_too_early(logits: torch.Tensor) -> None:
    logits[49] = 100.0
    logits[7] = 99.0
    early = sequence(output=3, min_tokens=4, stop_token_ids=(7,))
    late = sequence(output=4, min_tokens=4)
    chosen = choose(torch.stack((logits, logits)), [early, late], EOS)
    assert chosen[0].token_id not in (7, 49)
    assert chosen[1].token_id == 49


def test_repetition_is_made_less_likely(logits: torch.Tensor) -> None:
    best, second = logits.topk(2).indices.tolist()
    said = sequence(prompt=(best,), repetition_penalty=50.0)
    assert choose(logits[None].clone(), [said], EOS)[0].token_id == second


@pytest.mark.parametrize("temperature", [0.0, 1e-45, 1e-40, 1e-38, 9.9e-6])
@pytest.mark.parametrize("filters", [{}, {"top_p": 0.9}, {"top_k": 5}, {"min_p": 0.1}])
def test_next_to_no_temperature_is_greedy(
    logits: torch.Tensor, temperature: float, filters: dict[str, float]
) -> None:
    cold = sequence(temperature=temperature, **filters)
    assert choose(logits[None].clone(), [cold], EOS)[0] == choose(logits[None].clone(), [sequence()], EOS)[0]


ASKED = st.fixed_dictionaries(
    {"seed": st.integers(0, 2**64 - 1)},
    optional={
        "temperature": st.sampled_from([0.3, 0.8, 1.0, 2.0, 10.0]),
        "top_k": st.integers(0, 1100),
        "top_p": st.sampled_from([0.01, 0.5, 0.9, 0.999]),
        "min_p": st.sampled_from([1e-4, 0.05, 0.7]),
        "repetition_penalty": st.sampled_from([0.7, 1.1, 3.0]),
        "min_tokens": st.integers(0, 6),
    },
)
ROWS = st.lists(st.tuples(ASKED, st.integers(0, 5)), min_size=1, max_size=9)


@given(
    rows=ROWS,
    vocabulary=st.sampled_from([50, 1021, 5003]),
    spread=st.sampled_from([0.1, 1.0, 4.0, 20.0]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    threads=st.integers(1, 2),
    noise=st.integers(0, 2**32),
)
@settings(max_examples=examples(100))
def test_a_row_is_chosen_as_plainly_and_alike_in_any_company(
    rows: list[tuple[dict[str, Any], int]],
    vocabulary: int,
    spread: float,
    dtype: torch.dtype,
    threads: int,
    noise: int,
) -> None:
    generator = torch.Generator().manual_seed(noise)
    logits = torch.randn(len(rows), vocabulary, generator=generator, dtype=dtype) * spread
    kept, eos = logits.clone(), (vocabulary - 1,)
    asking = [sequence(f"r{row}", output, (3, 40, 3), **asked) for row, (asked, output) in enumerate(rows)]
    torch.set_num_threads(threads)
    try:
        together = choose(logits, asking, eos)
        alone = [choose(logits[row : row + 1], [asking[row]], eos)[0] for row in range(len(rows))]
    finally:
        torch.set_num_threads(1)
    assert torch.equal(logits, kept)
    assert together == alone
    plainly = [plain_sampler.pick(kept[row], asking[row], eos) for row in range(len(rows))]
    assert [choice.token_id for choice in together if isinstance(choice, Choice)] == plainly


def test_a_row_of_a_large_vocabulary_is_surveyed_alike_in_any_company() -> None:
    """Large enough for torch to cut a row among threads."""
    logits = torch.randn(9, 100_003, generator=torch.Generator().manual_seed(5))
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(choose(logits, [sequence(f"r{row}") for row in range(9)], EOS))
            found.append([choose(logits[row : row + 1], [sequence()], EOS)[0] for row in range(9)])
    finally:
        torch.set_num_threads(1)
    assert found == [found[0]] * 4


@pytest.mark.parametrize("asked", [{"top_k": 2}, {"top_p": 0.45}, {"top_k": 3, "top_p": 0.6}])
def test_of_tokens_that_are_equally_likely_the_first_ones_stay(asked: dict[str, Any]) -> None:
    for level in (torch.zeros(4), torch.tensor([5.0, 1.0, 5.0, 5.0, 1.0, 5.0])):
        equal = (level == level.max()).nonzero().flatten().tolist()
        drawn = draws(60, level, temperature=1.0, **asked).nonzero().flatten().tolist()
        assert drawn == equal[:2]


def test_what_was_seen_grows_with_the_output() -> None:
    asked = sequence(output=3, prompt=(1, 5, 5), repetition_penalty=2.0)
    assert asked.seen is not None
    assert sorted(asked.seen.ids) == [0, 1, 2, 5]
    assert sequence().seen is None


AWKWARD: dict[str, tuple[float, ...]] = {
    "temperature": (1e-5, 1e-4, 1.0, 1e6, 1e30, 3.4028234663852886e38),
    "top_p": (5e-324, 1e-45, 1e-38, 1e-7, 0.5, 1.0),
    "min_p": (0.0, 5e-324, 1e-40, 0.5, 1.0),
    "top_k": (0, 1, VOCABULARY, VOCABULARY + 1, 1 << 63),
    "repetition_penalty": (0.001, 0.5, 1.0, 2.0, 1000.0),
}


@given(
    asked=st.fixed_dictionaries({name: st.sampled_from(values) for name, values in AWKWARD.items()}),
    scale=st.sampled_from([0.0, 1e-45, 1e-38, 1.0, 100.0, 1e30]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    early=st.booleans(),
    seed=st.sampled_from([0, 1, 1 << 63, (1 << 64) - 1]),
)
def test_what_is_accepted_can_be_computed_with(
    asked: dict[str, Any], scale: float, dtype: torch.dtype, early: bool, seed: int
) -> None:
    noise = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(3), dtype=dtype)
    drawn = sequence(min_tokens=int(early), stop_token_ids=(7, 8), seed=seed, **asked)
    [choice] = choose((noise * scale)[None], [drawn], EOS)
    assert isinstance(choice, Choice)
    assert 0 <= choice.token_id < VOCABULARY
    assert not early or choice.token_id not in (7, 8, *EOS)
    assert 0 < choice.confidence <= 1
    assert choice.logprob <= 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("everywhere", [True, False])
def test_a_row_that_is_not_finite_has_no_token_and_its_neighbours_have_theirs(
    logits: torch.Tensor, value: float, everywhere: bool
) -> None:
    asked: list[dict[str, Any]] = [
        {},
        {"temperature": 1.0, "top_p": 0.9},
        {"temperature": 1.0},
        {"min_tokens": 1},
    ]
    alone = [choose(logits[None].clone(), [sequence(**sampling)], EOS)[0] for sampling in asked]
    spoilt = logits.clone()
    spoilt[slice(None) if everywhere else 5] = value
    for bad, sampling in enumerate(asked):
        rows = torch.stack([spoilt if index == bad else logits for index in range(len(asked))])
        outcomes = choose(rows, [sequence(**sampling) for sampling in asked], EOS)
        assert isinstance(outcomes[bad], RequestFailed)
        assert str(outcomes[bad]).startswith("logits: not finite; ")
        del outcomes[bad]
        assert outcomes == alone[:bad] + alone[bad + 1 :], sampling


def test_an_error_in_one_row_is_its_outcome(logits: torch.Tensor) -> None:
    broken = sequence(min_tokens=1, stop_token_ids=(VOCABULARY,))  # intake refuses it
    first, failed, last = choose(torch.stack([logits] * 3), [sequence(), broken, sequence()], EOS)
    assert isinstance(failed, RequestFailed)
    assert str(failed).startswith("request: IndexError: ")
    assert first == last == choose(logits[None].clone(), [sequence()], EOS)[0]


def test_filters_at_their_ends_leave_the_most_likely(logits: torch.Tensor) -> None:
    for ends in ({"top_p": 5e-324}, {"top_p": 1e-45}, {"min_p": 1.0}, {"top_k": 1}):
        assert draws(40, logits, temperature=2.0, **ends)[logits.argmax()] == 1


def test_a_penalty_pushes_both_signs_down_or_up() -> None:
    def after(said: tuple[int, ...], penalty: float, *values: float) -> int:
        asked = sequence(prompt=said, repetition_penalty=penalty)
        return choose(torch.tensor([values]), [asked], ())[0].token_id

    assert after((0, 2), 1000.0, 4.0, 3.9, -3.9, -4.0) == 1
    assert after((1, 3), 0.001, 4.0, 3.9, -3.9, -4.0) == 1
    assert after((2,), 1000.0, -1.0, -2.0, -0.5) == 0
    assert after((2,), 0.001, -1.0, -2.0, -3.0) == 2


def test_a_seed_fixes_the_output_and_company_does_not_matter(tiny: Path) -> None:
    def outputs(rows: int) -> list[tuple[int, ...]]:
        with running(tiny, EngineConfig(dtype="float64", max_context=256), max_batch_size=rows) as engine:
            streams = [
                send(
                    engine,
                    prompt_of(9),
                    max_tokens=30,
                    temperature=1.2,
                    top_p=0.9,
                    seed=seed,
                    ignore_eos=True,
                )
                for seed in (1, 2, 1, 3)
            ]
            return [stream.result().output_ids for stream in streams]

    alone, together = outputs(1), outputs(4)
    assert alone == together
    assert alone[0] == alone[2] != alone[1] != alone[3]


def test_without_a_seed_the_request_id_is_one() -> None:
    assert SamplingParams().seed_for("a") == SamplingParams().seed_for("a") != SamplingParams().seed_for("b")
    assert SamplingParams(seed=5).seed_for("a") == 5

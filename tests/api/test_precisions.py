"""Precisions in the API: which may be weighed, of which precision a row is, and what is wrong with a list of
them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from helios_contract.serves import Precision
from helios_operator.api import parse, serialize
from helios_operator.api.codec import Malformed
from helios_operator.api.identity import quality_name, timing_name
from helios_operator.api.rows import RowPhase, TimingRow
from helios_operator.api.validation import Invalid, admit

from tests.api.objects import minimal, model, put
from tests.api.test_identity import QUALITY, TIMING

CANDIDATE = "spec.candidates[0]"
WRONG: tuple[tuple[Any, str], ...] = (
    (["int9"], "[0]: 'int9' is not one of auto, int8, "),
    (["auto", "Int8"], "[1]: 'Int8' is not one of auto, int8, "),
    (["auto", "bfloat16"], "[1]: 'bfloat16' is not one of auto, int8, "),
    (["int8", "auto", "int8"], "[2]: 'int8' stands twice; each may stand once"),
    ([], ": is empty; fill it in"),
    (["auto", "int8", "auto", "int8"], ": has 4 entries; use at most 3"),
    ("int8", ": 'int8' is not a list; write a list"),
    ([8], "[0]: 8 is not a string; write it in quotes"),
)


@pytest.mark.parametrize("field", ["weightDtypes", "kvCacheDtypes"])
@pytest.mark.parametrize(("given", "said"), WRONG)
def test_a_wrong_list_is_named_by_its_field(field: str, given: Any, said: str) -> None:
    obj = minimal()
    obj["spec"]["candidates"][0][field] = given
    assert f"{CANDIDATE}.{field}{said}" in refusal(obj)
    assert f"spec.{field}{said}" in refusal(put(model(), f"spec.{field}", given))


def refusal(obj: Any) -> str:
    with pytest.raises(Invalid) as caught:
        admit(obj)
    return str(caught.value)


@pytest.mark.parametrize(("field", "stranger"), [("weightDtypes", "fp8"), ("kvCacheDtypes", "int4")])
def test_weights_and_keys_have_words_of_their_own(field: str, stranger: str) -> None:
    obj = minimal()
    obj["spec"]["candidates"][0][field] = [stranger]
    assert f"{CANDIDATE}.{field}[0]: '{stranger}' is not one of auto, int8, " in refusal(obj)


def test_the_schema_has_no_default_and_an_object_keeps_what_it_says() -> None:
    """What is weighed where nothing is said is the operator's, so that a release may change it."""
    (plain,) = admit(minimal())["spec"]["candidates"]
    assert not {"weightDtypes", "kvCacheDtypes"} & plain.keys()
    obj = minimal()
    obj["spec"]["candidates"][0] |= {"weightDtypes": ["int4"], "kvCacheDtypes": ["fp8", "auto"]}
    read = parse.deployment(admit(obj))
    assert read.spec.candidates[0].weight_dtypes == ("int4",)
    assert read.spec.candidates[0].kv_cache_dtypes == ("fp8", "auto")
    assert serialize.deployment(read)["spec"]["candidates"][0]["kvCacheDtypes"] == ["fp8", "auto"]
    entry = parse.model(admit(put(model(), "spec.weightDtypes", ["auto"])))
    assert entry.candidate.weight_dtypes == ("auto",)


def test_a_row_is_of_one_precision_and_the_references_keep_their_names() -> None:
    """Golden: a name that changes throws every profile away."""
    assert timing_name(replace(TIMING, weight_dtype="int8")) == "t-7fbac937ca16"
    assert timing_name(replace(TIMING, weight_dtype="int8", kv_cache_dtype="int8")) == "t-a8e0bed94490"
    assert quality_name(replace(QUALITY, weight_dtype="int8")) == "q-c51c25dfc996"
    assert timing_name(replace(TIMING, weight_dtype="auto", kv_cache_dtype="auto")) == "t-59ad967ace9f"
    assert quality_name(replace(QUALITY, weight_dtype="auto", kv_cache_dtype="auto")) == "q-aa888eab9ef4"


@pytest.mark.parametrize("precision", [Precision(), Precision("int8"), Precision("int4", "int8")])
def test_identities_are_read_back(precision: Precision) -> None:
    held = {"weight_dtype": precision.weight_dtype, "kv_cache_dtype": precision.kv_cache_dtype}
    timed, scored = replace(TIMING, **held), replace(QUALITY, **held)
    assert parse.timing_identity(serialize.timing_identity(timed)) == timed
    assert parse.quality_identity(serialize.quality_identity(scored)) == scored
    assert timed.precision == scored.precision == precision


def test_a_service_that_an_older_operator_wrote_is_as_published() -> None:
    written = {"candidate": "small", "revision": 1, "layerBudget": 24, "maxBatchSize": 8, "exitsDigest": ""}
    active = parse.deployment_status({"active": written}).active
    assert active is not None
    assert active.precision == Precision()
    told = replace(active, weight_dtype="auto", kv_cache_dtype="auto")
    assert active.answers_as(told)
    assert not told.answers_as(replace(told, weight_dtype="int8"))
    assert not told.answers_as(replace(told, kv_cache_dtype="int8"))


def test_a_row_whose_precision_was_not_kept_passes_for_no_other() -> None:
    """CRDs of the release before prune it: the row would be the reference's."""
    identity = replace(TIMING, weight_dtype="int8")
    row = TimingRow(timing_name(identity), identity, RowPhase.COMPLETE)
    obj = serialize.profile(row)
    assert parse.profile_row(obj) == row
    del obj["spec"]["timing"]["weightDtype"]
    with pytest.raises(Malformed, match=r"what spec says, t-59ad967ace9f: .* update the CRDs"):
        parse.profile_row(obj)

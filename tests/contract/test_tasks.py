"""Tasks of the user's own: what is wrong with them is named, and no answer takes long to judge."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from helios_contract import answers, task_file, tasks
from helios_contract.answers import judge, last_number
from helios_contract.task_file import WrongTasks
from helios_contract.tasks import Expectation, Message, Number, Task
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sizes import examples

GOOD: dict[str, Any] = {"name": "one", "prompt": "The capital of France is", "expect": {"contains": "Paris"}}
PERSON = {
    "type": "object",
    "required": ["name", "age"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "pattern": "^[A-Z]"},
        "age": {"type": "integer", "minimum": 0},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "uniqueItems": True},
    },
    "$defs": {"tag": {"enum": ["a", "b", 1, True]}},
}


def problems(*listed: Any) -> list[tuple[str, str]]:
    with pytest.raises(WrongTasks) as caught:
        task_file.read(json.dumps({"tasks": list(listed)}))
    assert all(problem.fix for problem in caught.value.problems)
    return [(problem.field, problem.problem) for problem in caught.value.problems]


def expecting(**expect: Any) -> dict[str, Any]:
    return {**GOOD, "expect": expect}


# -- reading -------------------------------------------------------------------------------------------------


YAML = """
tasks:
- name: capital   # a fact
  prompt: The capital of France is
  expect: {contains: Paris}
- name: sum
  maxTokens: 8
  messages:
  - {role: system, content: Answer with a number alone.}
  - {role: user, content: 2 + 2}
  expect:
    number: {value: 4, tolerance: 0.5}
    regex: ^4
- name: person
  prompt: "{"
  expect: {jsonSchema: {type: object}}
"""


def test_a_file_is_yaml_or_json() -> None:
    found = task_file.read(YAML)
    assert found == (
        Task("capital", Expectation(contains="Paris"), "The capital of France is"),
        Task(
            "sum",
            Expectation(regex="^4", number=Number(value=4.0, tolerance=0.5)),
            messages=(Message("system", "Answer with a number alone."), Message("user", "2 + 2")),
            max_tokens=8,
        ),
        Task("person", Expectation(json_schema={"type": "object"}), "{"),
    )
    assert task_file.read(tasks.document(found)) == found
    assert task_file.read(json.dumps([GOOD])) == task_file.read(json.dumps({"tasks": [GOOD]}))


def test_the_digest_follows_from_what_is_asked() -> None:
    one, two = task_file.read(json.dumps([GOOD, {**GOOD, "name": "two"}]))
    assert tasks.digest((one, two)) == tasks.digest(task_file.read(tasks.document((one, two))))
    others = [(two, one), (one,), (one, two.__class__(**{**vars(two), "max_tokens": 33}))]
    assert len({tasks.digest(each) for each in [(one, two), *others]}) == 4


@pytest.mark.parametrize(
    ("task", "field", "problem"),
    [
        ("copy", "tasks[0]", "is a text, not a task"),
        ({**GOOD, "promt": ""}, "tasks[0].promt", "is not known here"),
        ({**GOOD, "name": ""}, "tasks[0].name", "is empty"),
        ({**GOOD, "name": "n" * 64}, "tasks[0].name", "has 64 characters"),
        ({**GOOD, "name": 7}, "tasks[0].name", "7 is not a text"),
        ({"prompt": "x", "expect": {"equals": "y"}}, "tasks[0].name", "is missing"),
        ({"name": "x", "expect": {"equals": "y"}}, "tasks[0]", "has neither prompt nor messages"),
        ({**GOOD, "messages": [{"role": "user", "content": "x"}]}, "tasks[0]", "has both"),
        ({**GOOD, "prompt": "x" * 32769}, "tasks[0].prompt", "has 32769 characters"),
        ({**GOOD, "prompt": None}, "tasks[0].prompt", "is missing"),
        ({**GOOD, "maxTokens": 0}, "tasks[0].maxTokens", "0 is not a whole number from 1 to 1024"),
        ({**GOOD, "maxTokens": 1025}, "tasks[0].maxTokens", "1025"),
        ({**GOOD, "maxTokens": True}, "tasks[0].maxTokens", "True"),
        ({**GOOD, "maxTokens": "8"}, "tasks[0].maxTokens", "'8'"),
        ({"name": "x", "prompt": "y"}, "tasks[0].expect", "is missing"),
        (expecting(), "tasks[0].expect", "is missing"),
        ({**GOOD, "expect": ["x"]}, "tasks[0].expect", "is a list, not expectations"),
        (expecting(equal="x"), "tasks[0].expect.equal", "is not known here"),
        (expecting(equals=True), "tasks[0].expect.equals", "True is not a text"),
        (expecting(equals=" "), "tasks[0].expect.equals", "is empty"),
        (expecting(contains="x" * 4097), "tasks[0].expect.contains", "has 4097 characters"),
        (expecting(regex="("), "tasks[0].expect.regex", "missing )"),
        (expecting(regex="(?=x)"), "tasks[0].expect.regex", "is no regular expression of RE2"),
        (expecting(regex=r"(a)\1"), "tasks[0].expect.regex", "is no regular expression of RE2"),
        (expecting(regex="(x{1000}){1000}"), "tasks[0].expect.regex", "is no regular expression of RE2"),
        (expecting(regex="x" * 1025), "tasks[0].expect.regex", "has 1025 characters"),
        (expecting(number=4), "tasks[0].expect.number", "not a range"),
        (expecting(number={}), "tasks[0].expect.number", "is no range"),
        (expecting(number={"tolerance": 1}), "tasks[0].expect.number", "is no range"),
        (expecting(number={"min": 1, "value": 1}), "tasks[0].expect.number", "is no range"),
        (expecting(number={"min": 2, "max": 1}), "tasks[0].expect.number", "min 2 is above max 1"),
        (expecting(number={"value": 2, "tolerance": -1}), "tasks[0].expect.number.tolerance", "below 0"),
        (expecting(number={"min": "2"}), "tasks[0].expect.number.min", "'2' is not a number"),
        (expecting(number={"value": 10**400}), "tasks[0].expect.number.value", "is not a number"),
        (expecting(number={"least": 2}), "tasks[0].expect.number.least", "is not known here"),
        (expecting(jsonSchema={}), "tasks[0].expect.jsonSchema", "is empty"),
        (expecting(jsonSchema="object"), "tasks[0].expect.jsonSchema", "not a JSON schema"),
        (expecting(jsonSchema={"type": "objekt"}), "tasks[0].expect.jsonSchema.type", "is no JSON schema"),
        (expecting(jsonSchema={"required": "x"}), "tasks[0].expect.jsonSchema.required", "is no JSON"),
        (expecting(jsonSchema={"requierd": []}), "tasks[0].expect.jsonSchema.requierd", "is not read here"),
        (expecting(jsonSchema={"$ref": "https://x.org/y"}), "tasks[0].expect.jsonSchema.$ref", "nowhere"),
        (expecting(jsonSchema={"$ref": "#/$defs/a"}), "tasks[0].expect.jsonSchema.$ref", "nowhere"),
        (expecting(jsonSchema={"$defs": {"a/b": {}}, "$ref": "#/$defs/a/b"}),
         "tasks[0].expect.jsonSchema.$ref", "nowhere"),
        (expecting(jsonSchema={"items": {"pattern": "(?<=x)"}}),
         "tasks[0].expect.jsonSchema.items.pattern", "is no regular expression of RE2"),
        (expecting(jsonSchema={"anyOf": [{}, {"patternProperties": {}}]}),
         "tasks[0].expect.jsonSchema.anyOf[1].patternProperties", "is not read here"),
        (expecting(jsonSchema={"$id": "https://x.org/y"}), "tasks[0].expect.jsonSchema.$id", "not read"),
        (expecting(jsonSchema={"enum": ["x" * 16384]}), "tasks[0].expect.jsonSchema", "takes 16,397 bytes"),
        ({**GOOD, "messages": []}, "tasks[0].messages", "is no list of messages"),
        ({"name": "x", "expect": {"equals": "y"}, "messages": [{"role": "tool", "content": "x"}]},
         "tasks[0].messages[0].role", "'tool' is no role"),
        ({"name": "x", "expect": {"equals": "y"}, "messages": [{"role": "user"}]},
         "tasks[0].messages[0].content", "is missing"),
        ({"name": "x", "expect": {"equals": "y"}, "messages": [{"role": "user", "content": "x"}] * 33},
         "tasks[0].messages", "has 33 messages"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(task: Any, field: str, problem: str) -> None:
    assert any(at == field and problem in said for at, said in problems(task)), problems(task)


def test_all_of_it_is_named_at_once() -> None:
    found = problems({"name": "a"}, {**GOOD, "name": "b"}, {**GOOD, "name": "b", "x": 1})
    fields = [field for field, _ in found]
    assert fields == ["tasks[0]", "tasks[0].expect", "tasks[2].x", "tasks[2].name"]
    assert "stands twice" in found[-1][1]


def test_more_than_the_bound_is_named() -> None:
    many = [{**GOOD, "name": f"t{index}"} for index in range(257)]
    assert problems(*many) == [("tasks", "has 257 tasks")]
    long = [{**GOOD, "name": f"t{index}", "prompt": "x" * 32768} for index in range(9)]
    assert problems(*long)[0][0] == "tasks"
    assert "bytes as JSON" in problems(*long)[0][1]
    deep = [{**GOOD, "name": f"t{index}", "maxTokens": 1024} for index in range(65)]
    assert problems(*deep) == [("tasks", "ask for 66,560 tokens in all")]


BOMB = "a: &a [x,x]\n" + "".join(
    f"{b}: &{b} [*{a},*{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "tasks: holds no task"),
        ("tasks: []", "tasks: holds no task"),
        ("tasks: 7", "tasks: is a number, not a list of tasks"),
        ("just words", "tasks: is a text, not a list of tasks"),
        ("task:\n- x", "tasks.task: is not known"),
        ("tasks:\n- {name: a, name: b}", "stands twice"),
        ('{"tasks": [], "tasks": []}', "stands twice"),
        ("tasks: [", "neither YAML nor JSON"),
        ("- !!python/object/apply:os.system [ls]", "neither YAML nor JSON"),
        (BOMB, "an alias is not read here"),
        ("[" * 100_000, "nested too deep"),
        ("x" * 1_048_577, "has 1,048,577 characters"),
    ],
)
def test_a_text_that_holds_no_tasks_is_refused_by_name(text: str, problem: str) -> None:
    with pytest.raises(WrongTasks, match=problem):
        task_file.read(text)


@settings(max_examples=examples(40))
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: (
    st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from([*task_file._TASK, *task_file._EXPECTATIONS, "$ref", "x"]), inner)
)))  # fmt: skip
def test_whatever_is_given_is_read_or_refused(found: Any) -> None:
    try:
        assert task_file.checked(found, "tasks")
    except WrongTasks as error:
        said = str(error)
        assert said


# -- judging -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "answer", "passes"),
    [
        (Expectation(equals="Paris"), " Paris\n", True),
        (Expectation(equals="Paris"), "Paris.", False),
        (Expectation(contains="Paris"), "It is Paris, of course", True),
        (Expectation(contains="Paris"), "paris", False),
        (Expectation(regex="^[0-9]{3}$"), " 123 ", True),
        (Expectation(regex="^[0-9]{3}$"), "1234", False),
        (Expectation(regex="Ä+"), "zÄÄ", True),
        (Expectation(equals="4", regex="5"), "4", False),
        (Expectation(number=Number(min=1)), "1 or 2", True),
        (Expectation(number=Number(min=1, max=2)), "1 or 3", False),
        (Expectation(number=Number(value=0.3, tolerance=0.05)), "about .33", True),
        (Expectation(number=Number(value=4)), "2 + 2 = 4.", True),
        (Expectation(number=Number(value=4)), "four", False),
        (Expectation(number=Number(min=0)), "9" * 400, False),
        (Expectation(json_schema=PERSON), '{"name": "Ada", "age": 36, "tags": ["a", 1]}', True),
        (Expectation(json_schema=PERSON), '{"name": "ada", "age": 36}', False),
        (Expectation(json_schema=PERSON), '{"name": "Ada", "age": -1}', False),
        (Expectation(json_schema=PERSON), '{"name": "Ada", "age": 1, "x": 1}', False),
        (Expectation(json_schema=PERSON), '{"name": "Ada", "age": 36, "tags": ["a", "a"]}', False),
        (Expectation(json_schema=PERSON), '{"name": "Ada", "age": 36, "tags": ["c"]}', False),
        (Expectation(json_schema=PERSON), '{"name": "Ada", "age": 36} and more', False),
        (Expectation(json_schema={"type": "number"}), "NaN", False),
        (Expectation(json_schema={"type": "array"}), "[" * 10_000, False),
    ],
)
def test_what_is_expected_holds_or_not(expected: Expectation, answer: str, passes: bool) -> None:
    found = judge(expected, answer)
    assert found.passes == passes
    assert bool(found.why) != passes


@pytest.mark.parametrize(
    ("number", "answer", "why"),
    [
        (Number(value=4), "2", "has 2 as its last number, which is not 4"),
        (Number(value=4, tolerance=1), "2", "has 2 as its last number, which is not within 3 to 5"),
        (Number(min=4), "2", "has 2 as its last number, which is not 4 or more"),
        (Number(max=4), "5", "has 5 as its last number, which is not 4 or less"),
        (Number(min=4), "9" * 400, "has a last number that is too large to compare"),
        (Number(min=4), "two", "has no number"),
    ],
)
def test_a_number_that_was_missed_is_told_as_it_was_asked(number: Number, answer: str, why: str) -> None:
    assert judge(Expectation(number=number), answer).why == why


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("the answer is 42.", 42), ("-3", -3), ("−3 °C", -3), ("+7", 7), ("3-4", 4), ("x-1", 1), ("(2)-5", 5),
        ("1,234,567.5 in all", 1234567.5), ("1, 2, 3", 3), ("1.5e3", 1500), ("v2", 2), ("= -.5", -0.5),
        ("none", None), ("", None), ("٣", None),
    ],
)  # fmt: skip
def test_the_last_number_counts(answer: str, number: float | None) -> None:
    assert last_number(answer) == number


def test_no_pattern_takes_long() -> None:
    """Each would take Python's own engine longer than the sun will shine."""
    for pattern, text in (
        ("^(a+)+$", "a" * 16_000 + "b"),
        ("(x*)*y", "x" * 16_000),
        ("(a|aa)+$", "a" * 16_000),
    ):
        answers.check_pattern(pattern)
        judge(Expectation(regex=pattern), text)
    nested = {"type": "array", "items": {"pattern": "^(a+)+$"}}
    assert not judge(Expectation(json_schema=nested), json.dumps(["a" * 12_000 + "b"])).passes


def test_no_schema_takes_long() -> None:
    """Doubling by references, a reference to itself, a list that is compared with each of its entries."""
    doubling = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(40)} | {"d40": {}}
    endless = {"$ref": "#"} | {"$defs": {"a": {"$ref": "#/$defs/a"}}}
    tree = {"$defs": {"n": {"anyOf": [{"items": {"$ref": "#/$defs/n"}, "minItems": 2}] * 3}}}
    deep = "[" * 300 + "]" * 300
    for schema, answer in (
        ({"$ref": "#/$defs/d0", "$defs": doubling}, "1"),
        ({**endless, "$ref": "#/$defs/a"}, "1"),
        ({"$ref": "#/$defs/n", **tree}, deep),
        ({"items": {"enum": list(range(3000))}}, json.dumps([-1] * 5000)),
        ({"allOf": [{"items": {"not": {"const": 5}}}] * 300}, json.dumps(list(range(6, 3000)))),
    ):
        answers.check_schema(schema)
        assert "steps" in judge(Expectation(json_schema=schema), answer).why or answer[0] == "["
    many = json.dumps([[i] for i in range(2000)])
    assert judge(Expectation(json_schema={"uniqueItems": True}), many).passes
    assert not judge(Expectation(json_schema={"uniqueItems": True}), "[1, 1.0]").passes
    assert judge(Expectation(json_schema={"uniqueItems": True}), "[1, true]").passes
    assert not judge(Expectation(json_schema={"multipleOf": 0.1}), "1" + "0" * 400).passes


@given(st.text())
def test_no_answer_is_too_strange(answer: str) -> None:
    everything = Expectation("x", "y", "z", Number(min=0), PERSON)
    for expected in (everything, Expectation(json_schema=PERSON), Expectation(number=Number(min=0))):
        judge(expected, answer)
    found = last_number(answer)
    assert found is None or not math.isnan(found)


# -- passes as bits ------------------------------------------------------------------------------------------


@given(st.lists(st.booleans(), max_size=70))
def test_passes_are_bits(passes: list[bool]) -> None:
    assert tasks.passes(tasks.bits(passes), len(passes)) == tuple(passes)


def test_the_first_task_is_the_highest_bit() -> None:
    assert tasks.bits([True, False, False, False, True]) == "88"
    for digits, count in (("8", 5), ("89", 5), ("G8", 5), ("888", 5), ("-8", 5)):
        with pytest.raises(ValueError, match="passes"):
            tasks.passes(digits, count)

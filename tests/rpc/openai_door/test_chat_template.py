"""A chat's ids are those of transformers' apply_chat_template, token for token, wherever the template
stands; a model without one says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helios_server.engine.serving import Model
from helios_server.errors import HeliosError, InvalidRequest
from helios_server.models.families import _ALIASES, _FAMILIES
from helios_server.models.store import ensure_smollm2
from helios_server.models.tokenizer import Tokenizer
from helios_server.rpc.fields import Fields
from helios_server.rpc.openai.chat import Chat, NoTemplate
from transformers import AutoTokenizer

from tests.checkpoints import SPECIAL, make_checkpoint, write_tokenizer
from tests.models.vocabularies import sentencepiece
from tests.rpc.openai_door.clients import CHAT, TEXT, post
from tests.rpc.openai_door.family_tokenizers import FAMILIES, write_family
from tests.rpc.pods import LAYERS, serving

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|begin|>system\nYou are a helpful AI assistant<|end|>\n' }}{% endif %}"
    "{{'<|begin|>' + message['role'] + '\n' + message['content'] + '<|end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|begin|>assistant\n' }}{% endif %}"
)
LLAMA = (
    "{{- bos_token }}\n{%- if not date_string is defined %}\n"
    "    {%- set date_string = strftime_now('%Y') %}\n{%- endif %}\n{%- for message in messages %}\n"
    "    {{- '<|user|>' + message['role'] + '\\n\\n' + message.content | trim + eos_token }}\n"
    "{%- endfor %}\n{{- date_string }}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{{ m['role'] }}: {{ m['content'] }}{% endfor %}"
)
QWEN = (
    "{%- set ns = namespace(last=-1) %}{%- for m in messages %}{%- set ns.last = loop.index0 %}{%- endfor %}"
    "{% generation %}{{ messages | tojson }}{{ ns.last }}{% endgeneration %}{% if tools %}tools{% endif %}"
    "{% for m in messages %}{% if m.name %}{{ m.name }}{% endif %}"
    "{% if loop.last %}{% break %}{% endif %}{% endfor %}"
)
CHATS: list[list[dict[str, str]]] = [
    [{"role": "user", "content": "Who is Ahab?"}],
    [{"role": "user", "content": " ä漢🙂 <|end|>\n"}, {"role": "assistant", "content": "A captain. "}] * 2,
    [{"role": "user", "content": '{{ bos_token }} {% raw %} <b>&amp;</b> "quoted"', "name": "Ishmael"}],
]


def write(folder: Path, template: str, place: str) -> None:
    folder.mkdir(exist_ok=True)
    write_tokenizer(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["chat_template"]
    match place:
        case "config":
            config["chat_template"] = template
        case "named":
            other = {"name": "tool_use", "template": "tools"}
            config["chat_template"] = [other, {"name": "default", "template": template}]
        case "file":
            config["chat_template"] = "not this one"
            (folder / "chat_template.jinja").write_text(template)
        case "objects":
            config["chat_template"] = template
            config["bos_token"] = {"__type": "AddedToken", "content": SPECIAL[0], "special": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


async def ids(folder: Path, messages: list[dict[str, str]]) -> list[int]:
    tokenizer = Tokenizer.open(folder)
    model = Model(
        **dict.fromkeys(Model.__dataclass_fields__) | {"tokenizer": tokenizer, "tokenizer_digest": "x"}
    )  # type: ignore[arg-type]
    return list((await Chat.read(Fields({"messages": messages})).prompt(model)).ids)


@pytest.mark.parametrize("messages", CHATS, ids=["short", "turns", "hostile"])
@pytest.mark.parametrize(
    "template", [CHATML, LLAMA, MISTRAL, QWEN], ids=["chatml", "llama", "mistral", "qwen"]
)
@pytest.mark.parametrize("place", ["config", "named", "file", "objects"])
async def test_the_ids_are_those_of_transformers(
    tmp_path: Path, place: str, template: str, messages: list[dict[str, str]]
) -> None:
    write(tmp_path, template, place)
    theirs = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    expected: Any = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert await ids(tmp_path, messages) == expected
    assert len(expected) > 5


@pytest.mark.parametrize("messages", CHATS, ids=["short", "turns", "hostile"])
async def test_the_ids_of_a_sentencepiece_model_are_too(
    tmp_path: Path, messages: list[dict[str, str]]
) -> None:
    sentencepiece(tmp_path)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": MISTRAL, "bos_token": "</s>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    theirs = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    expected: Any = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert await ids(tmp_path, messages) == expected


def test_every_family_that_is_read_has_a_tokenizer_here() -> None:
    assert {family for family, _ in FAMILIES.values()} == set(_FAMILIES) | set(_ALIASES)


@pytest.mark.parametrize("name", FAMILIES)
async def test_the_ids_of_each_family_are_those_of_transformers(tmp_path: Path, name: str) -> None:
    """With a system's word and without; where the template refuses a chat, both do."""
    write_family(tmp_path, name)
    theirs = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    system, thought = {"role": "system", "content": "Be brief."}, "<think>\nhm\n</think>\n\nA captain."
    turns = [CHATS[0][0], {"role": "assistant", "content": thought}, {"role": "user", "content": "Who ? "}]
    for said in (*CHATS, [system, *CHATS[0]], turns):
        expected: Any = theirs.apply_chat_template(said, add_generation_prompt=True, return_dict=False)
        assert await ids(tmp_path, said) == expected
        assert len(expected) > 5
        assert theirs.unk_token_id is None or theirs.unk_token_id not in expected or name == "OPT"


async def test_the_ids_of_the_real_model_are_too() -> None:
    folder = ensure_smollm2()
    theirs = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    for said in CHATS:
        expected: Any = theirs.apply_chat_template(said, add_generation_prompt=True, return_dict=False)
        assert await ids(folder, said) == expected


async def test_a_developer_speaks_as_the_system(tmp_path: Path) -> None:
    write(tmp_path, CHATML, "config")
    said = [{"role": role, "content": "Be brief."} for role in ("developer", "system")]
    first, second = [await ids(tmp_path, [each]) for each in said]
    assert first == second


async def test_a_template_may_refuse_a_chat(tmp_path: Path) -> None:
    write(tmp_path, MISTRAL, "config")
    with pytest.raises(InvalidRequest) as raised:
        await ids(tmp_path, [{"role": "assistant", "content": "x"}])
    assert (raised.value.field, raised.value.problem) == (
        "messages",
        "the model's chat template refuses them (roles must alternate)",
    )


@pytest.mark.parametrize(
    ("template", "kind"),
    [
        ("{% for %}", NoTemplate),
        ("{{ messages[5].content }}", InvalidRequest),
        ("{{ messages[0].content + 1 }}", InvalidRequest),
        ("{{ 1 // 0 }}", InvalidRequest),
        ("{{ messages.__class__.__mro__[1].__subclasses__() }}", InvalidRequest),
        ("{{ messages.append(1) }}", InvalidRequest),
        ("{{ range(10 ** 9) }}", InvalidRequest),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", InvalidRequest),
        ("{# nothing #}", InvalidRequest),
    ],
)
async def test_a_template_that_is_broken_or_wicked_refuses_the_chat(
    tmp_path: Path, template: str, kind: type[HeliosError]
) -> None:
    write(tmp_path, template, "config")
    with pytest.raises(kind) as raised:
        await ids(tmp_path, CHATS[0])
    assert raised.value.field == "messages"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "tokenizer_config.json").unlink(), "has no chat template"),
        (lambda folder: (folder / "tokenizer_config.json").write_text("{"), "cannot be read"),
        (
            lambda folder: (folder / "tokenizer_config.json").write_text('{"chat_template": 5}'),
            "has no chat template",
        ),
        (lambda folder: (folder / "chat_template.jinja").write_bytes(b"\xff"), "cannot be read"),
    ],
)
async def test_a_model_without_a_template_continues_texts_and_refuses_chats(
    tmp_path: Path, spoil: Any, words: str
) -> None:
    model = make_checkpoint(tmp_path / "model", layers=LAYERS)
    spoil(model)
    async with serving(model) as pod:
        answer = await post(pod, CHAT)
        assert (answer.status, answer.error["param"]) == (400, "messages")
        assert words in answer.error["message"]
        assert "/v1/completions" in answer.error["message"]
        assert (await post(pod, TEXT)).status == 200


async def test_a_template_follows_the_model_that_is_exchanged(tmp_path: Path) -> None:
    """Another model, another template, in mid-life."""
    first = make_checkpoint(tmp_path / "first", layers=LAYERS)
    second = make_checkpoint(tmp_path / "second", layers=LAYERS, seed=1)
    write(second, CHATML, "config")
    async with serving(first) as pod:
        before = (await post(pod, CHAT)).body["usage"]["prompt_tokens"]
        await pod.set_limits(model_uri=f"file://{second}", candidate="second", model_revision="")
        after = (await post(pod, CHAT)).body["usage"]["prompt_tokens"]
        assert after > before

"""Folders that hold no model, or claim what they do not hold: one line with what was found and what to do."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from helios_server.errors import CheckpointError, HeliosError, ModelNotFoundError, OutOfMemoryBudget
from helios_server.models.checkpoint import Checkpoint
from helios_server.models.reading import reading
from helios_server.models.store import resolve

from tests.checkpoints import make_checkpoint
from tests.models.changes import SINGLE, change_json, header_of, write_header

INDEX = "model.safetensors.index.json"
NORM = "model.norm.weight"


def refused(path: Path) -> HeliosError:
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open(path)
    assert "\n" not in str(caught.value)
    assert "cannot be loaded" not in str(caught.value)
    return caught.value


class TestOtherForms:
    FORMS = (
        ("adapter_config.json", "an adapter", "merge_and_unload"),
        ("model-q4_k_m.gguf", "a GGUF file", "gguf_file"),
        ("pytorch_model.bin", "a PyTorch pickle", "save_pretrained"),
        ("pytorch_model-00001-of-00002.bin", "a PyTorch pickle", "save_pretrained"),
        ("model.pt", "a PyTorch pickle", "save_pretrained"),
        ("consolidated.00.pth", "a PyTorch pickle", "save_pretrained"),
        ("model-00001-of-00002.safetensors", "index is missing", INDEX),
        ("adapter_model.safetensors", "index is missing", INDEX),
    )

    @pytest.mark.parametrize("config", [True, False])
    @pytest.mark.parametrize(("file", "what", "fix"), FORMS)
    def test_named_with_the_way_to_convert_it(
        self, tmp_path: Path, file: str, what: str, fix: str, config: bool
    ) -> None:
        make_checkpoint(tmp_path)
        (tmp_path / SINGLE).unlink()
        (tmp_path / file).write_bytes(b"{}")
        if not config:
            (tmp_path / "config.json").unlink()
        for read in (Checkpoint.open, lambda path: resolve(f"file://{path}")):
            with pytest.raises(CheckpointError) as caught:
                read(tmp_path)
            assert file in caught.value.problem
            assert what in caught.value.problem
            assert fix in caught.value.fix

    @pytest.mark.parametrize("content", ['{"base_model_name_or_path": "org/base"}', "null", "[", "\0"])
    def test_an_adapters_base_model_is_named_where_it_is_known(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "adapter_config.json").write_text(content)
        (tmp_path / "adapter_model.safetensors").write_bytes(b"")
        assert ("org/base" if "org" in content else "its base model") in refused(tmp_path).fix

    def test_a_file_in_place_of_a_folder(self, tmp_path: Path) -> None:
        file = tmp_path / "model.gguf"
        file.write_bytes(b"GGUF")
        with pytest.raises(ModelNotFoundError, match="is a file"):
            resolve(f"file://{file}")


class TestConfig:
    @pytest.mark.parametrize(
        "content",
        [b"", b"[]", b"null", b"{", b'{"a": }', b"\xff\xfe", b"[" * 100_000, b'{"a": 1' + b"0" * 5000 + b"}"],
    )
    def test_that_holds_no_object(self, tmp_path: Path, content: bytes) -> None:
        (make_checkpoint(tmp_path) / "config.json").write_bytes(content)
        assert refused(tmp_path).field == str(tmp_path / "config.json")

    SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
             "intermediate_size", "vocab_size", "max_position_embeddings")  # fmt: skip

    @pytest.mark.parametrize("field", SIZES)
    @pytest.mark.parametrize("value", ["64", 64.0, True, 0, -1, 10**30, [64], {}])
    def test_a_size_that_is_none(self, tmp_path: Path, field: str, value: object) -> None:
        change_json(make_checkpoint(tmp_path) / "config.json", **{field: value})
        with pytest.raises(HeliosError, match="expected a positive integer, found") as caught:
            Checkpoint.open(tmp_path)
        assert caught.value.field == field

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("tie_word_embeddings", "false"),
            ("attention_bias", 1),
            ("mlp_bias", "yes"),
            ("rms_norm_eps", "1e-5"),
            ("rms_norm_eps", -1e-5),
            ("rms_norm_eps", float("nan")),
            ("rms_norm_eps", float("inf")),
            ("hidden_act", ["silu"]),
            ("model_type", ["llama"]),
            ("model_type", None),
            ("quantization_config", "gptq"),
        ],
    )
    def test_a_field_of_another_kind(self, tmp_path: Path, field: str, value: object) -> None:
        change_json(make_checkpoint(tmp_path) / "config.json", **{field: value})
        with pytest.raises(HeliosError) as caught:
            Checkpoint.open(tmp_path)
        assert caught.value.field == field

    @pytest.mark.parametrize("value", ["4096", -1, 4096.5, [1]])
    def test_a_window_that_is_none(self, tmp_path: Path, value: object) -> None:
        change_json(make_checkpoint(tmp_path, "mistral") / "config.json", sliding_window=value)
        with pytest.raises(HeliosError, match="sliding_window: expected a positive integer"):
            Checkpoint.open(tmp_path)


class TestIndex:
    @pytest.mark.parametrize("value", [None, [], "model.safetensors", 3])
    def test_without_a_weight_map(self, tmp_path: Path, value: object) -> None:
        make_checkpoint(tmp_path, layers=4, shards=2)
        change_json(tmp_path / INDEX, weight_map=value)
        error = refused(tmp_path)
        assert error.field == str(tmp_path / INDEX)
        assert f"weight_map is {json.dumps(value)}, expected an object" in error.problem

    @pytest.mark.parametrize(
        "file",
        [None, 1, ["a.safetensors"], "", "/etc/passwd", "/etc/x.safetensors", "../other/model.safetensors",
         "a/../../model.safetensors", "a\0.safetensors", "pytorch_model.bin", "a" * 300 + ".safetensors"],
    )  # fmt: skip
    def test_a_file_that_is_none_or_lies_elsewhere(self, tmp_path: Path, file: Any) -> None:
        make_checkpoint(tmp_path, layers=4, shards=2)
        weight_map = json.loads((tmp_path / INDEX).read_text())["weight_map"]
        change_json(tmp_path / INDEX, weight_map=weight_map | {NORM: file})
        error = refused(tmp_path)
        assert f"'{NORM}', expected the name of a file beside it" in error.problem

    def test_a_file_that_does_not_exist(self, tmp_path: Path) -> None:
        make_checkpoint(tmp_path, layers=4, shards=2)
        (tmp_path / "model-00002-of-00002.safetensors").unlink()
        with pytest.raises(CheckpointError, match=r"00002-of-00002.safetensors: file is missing"):
            resolve(f"file://{tmp_path}")

    def test_a_tensor_that_its_file_lacks(self, tmp_path: Path) -> None:
        make_checkpoint(tmp_path, layers=4, shards=2)
        weight_map = json.loads((tmp_path / INDEX).read_text())["weight_map"]
        change_json(tmp_path / INDEX, weight_map=weight_map | {NORM: "model-00002-of-00002.safetensors"})
        assert f"tensor '{NORM}' is missing from this file" in refused(tmp_path).problem

    @pytest.mark.parametrize("content", ["", "[]", "null", "{"])
    def test_that_holds_no_object(self, tmp_path: Path, content: str) -> None:
        make_checkpoint(tmp_path, layers=4, shards=2)
        (tmp_path / INDEX).write_text(content)
        assert refused(tmp_path).field == str(tmp_path / INDEX)


class TestHeaders:
    """Whatever a header claims: the file is refused, and nothing beyond it is read."""

    LIES = (
        ({"data_offsets": [-256, 256]}, "data_offsets"),
        ({"data_offsets": [512, 0]}, "data_offsets"),
        ({"data_offsets": [0]}, "data_offsets"),
        ({"data_offsets": None}, "data_offsets"),
        ({"data_offsets": ["0", "512"]}, "data_offsets"),
        ({"data_offsets": [0.0, 512.0]}, "data_offsets"),
        ({"data_offsets": [10**12, 10**12 + 512]}, "belong to none"),
        ({"data_offsets": [0, 512]}, "overlap"),
        ({"data_offsets": [2**63, 2**63 + 512]}, "data_offsets"),
        ({"shape": [65]}, "takes 520"),
        ({"shape": [-64]}, "shape"),
        ({"shape": [64, -1, -1]}, "shape"),
        ({"shape": None}, "shape"),
        ({"shape": "64"}, "shape"),
        ({"shape": [64.0]}, "shape"),
        ({"shape": [True]}, "shape"),
        ({"dtype": None}, "dtype"),
        ({"dtype": ["F64"]}, "dtype"),
        ({"dtype": "F32"}, "takes 256"),
    )

    @pytest.mark.parametrize(("lie", "named"), LIES)
    def test_a_lying_entry(self, tmp_path: Path, lie: dict[str, Any], named: str) -> None:
        file = make_checkpoint(tmp_path) / SINGLE
        header, data = header_of(file)
        last = max(
            (name for name in header if name != "__metadata__"), key=lambda n: header[n]["data_offsets"]
        )
        assert last == NORM
        header[NORM] |= lie
        write_header(file, header, data)
        error = refused(tmp_path)
        assert error.field == str(file)
        assert named in error.problem
        assert NORM in error.problem

    @pytest.mark.parametrize("entry", [None, [], "F64", 3])
    def test_an_entry_that_is_none(self, tmp_path: Path, entry: object) -> None:
        file = make_checkpoint(tmp_path) / SINGLE
        header, data = header_of(file)
        write_header(file, header | {NORM: entry}, data)
        assert f"tensor '{NORM}' is {json.dumps(entry)}, expected an object" in refused(tmp_path).problem

    @pytest.mark.parametrize("length", [0, 1, 10**9, 2**63, 2**64 - 1])
    def test_a_length_that_is_not_the_headers(self, tmp_path: Path, length: int) -> None:
        file = make_checkpoint(tmp_path) / SINGLE
        header, data = header_of(file)
        write_header(file, header, data, length)
        assert refused(tmp_path).field == str(file)

    def test_a_header_longer_than_any(self, tmp_path: Path) -> None:
        """A sparse file: reading it would take the memory that it claims."""
        file = make_checkpoint(tmp_path) / SINGLE
        with file.open("wb") as handle:
            handle.write(struct.pack("<Q", 1 << 33))
            handle.truncate(1 << 34)
        assert "claims" in refused(tmp_path).problem

    @pytest.mark.parametrize("header", [b"", b"[]", b"null", b"{", b"{]", b"\xff", b'{"a":' * 50_000])
    def test_a_header_that_is_no_object(self, tmp_path: Path, header: bytes) -> None:
        file = make_checkpoint(tmp_path) / SINGLE
        write_header(file, header, b"")
        assert refused(tmp_path).field == str(file)

    def test_a_name_that_stands_twice(self, tmp_path: Path) -> None:
        file = make_checkpoint(tmp_path) / SINGLE
        header, data = header_of(file)
        again = json.dumps({NORM: header[NORM]})[1:]
        write_header(file, json.dumps(header)[:-1].encode() + b", " + again.encode(), data)
        assert f"'{NORM}' stands twice" in refused(tmp_path).problem

    def test_bytes_that_belong_to_no_tensor(self, tmp_path: Path) -> None:
        file = make_checkpoint(tmp_path) / SINGLE
        file.write_bytes(file.read_bytes() + b"more")
        assert "4 bytes at its end" in refused(tmp_path).problem

    def test_a_pipe_is_no_file(self, tmp_path: Path) -> None:
        (make_checkpoint(tmp_path) / SINGLE).unlink()
        os.mkfifo(tmp_path / SINGLE)
        assert "index is missing" in refused(tmp_path).problem


class TestWhateverElseIsRaised:
    @pytest.mark.parametrize(
        "error", [RuntimeError("a\nb"), OSError(5, "Input/output error"), KeyError("x"), ValueError()]
    )
    def test_is_wrong_input_that_names_the_model(self, error: Exception) -> None:
        with pytest.raises(CheckpointError) as caught, reading("file:///model"):
            raise error
        assert caught.value.field == "file:///model"
        assert type(error).__name__ in caught.value.problem
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        "error",
        [
            MemoryError(),
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
            RuntimeError("CUDA out of memory. x"),
        ],
    )
    def test_but_for_memory(self, error: Exception) -> None:
        with pytest.raises(OutOfMemoryBudget), reading("file:///model"):
            raise error

    def test_what_has_a_name_keeps_it(self) -> None:
        with pytest.raises(ModelNotFoundError, match="x: y; z"), reading("file:///model"):
            raise ModelNotFoundError("x", "y", "z")

    def test_a_file_that_nobody_may_read(self, tmp_path: Path) -> None:
        """As root nothing is forbidden; a folder in the file's place cannot be read by anybody."""
        file = make_checkpoint(tmp_path) / "config.json"
        file.unlink()
        file.mkdir()
        assert refused(tmp_path).field == str(file)

"""What the manifests tell `helios serve` and `helios profile` is what those programs understand."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest
from helios_contract.results import Inspection, Quality
from helios_operator.api import results
from helios_operator.api.identity import prompts_digest
from helios_operator.api.types import Candidate
from helios_operator.decide.snapshot import JobKind
from helios_operator.render import Manifest, configmap
from helios_operator.render.job import profiling_job
from helios_server import profile, serve

from tests.checkpoints import make_checkpoint
from tests.render import objects

_PROMPTS = ["Call me Ishmael.", "Some years ago, never mind how long precisely."]


def test_the_server_understands_its_command_line(tmp_path: Path) -> None:
    hd = objects.deployment(rollout={"drain": {"preStopSeconds": 5, "timeoutSeconds": 77}})
    limits = configmap.limits_config_map(hd, 7, objects.serving_limits())
    (tmp_path / "limits.json").write_text(limits["data"]["limits.json"])
    manifest = objects.revision(hd)
    command = _command(manifest, {"/etc/helios/limits/limits.json": str(tmp_path / "limits.json")})
    assert command[:2] == ["helios", "serve"]
    config = serve.parse(command[2:])
    assert config.limits.layer_budget == 24
    assert config.drain_timeout == 77
    assert config.engine.max_context is None
    assert str(config.control_token_file) == _mounted(manifest, "control") + "/token"
    listening = {*dataclasses.astuple(config.ports)}
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    assert {port["containerPort"] for port in container["ports"]} == listening


def test_without_http_there_is_neither_port_nor_door(tmp_path: Path) -> None:
    hd = objects.deployment(service={"httpPort": 0})
    limits = configmap.limits_config_map(hd, 7, objects.serving_limits())
    (tmp_path / "limits.json").write_text(limits["data"]["limits.json"])
    manifest = objects.revision(hd)
    command = _command(manifest, {"/etc/helios/limits/limits.json": str(tmp_path / "limits.json")})
    ports = serve.parse(command[2:]).ports
    assert ports.http_port is None
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    assert [port["name"] for port in container["ports"]] == ["grpc", "control", "metrics"]


def test_a_server_of_the_release_before_understands_the_default() -> None:
    """It knows no --http-port."""
    container = objects.revision(objects.deployment())["spec"]["template"]["spec"]["containers"][0]
    assert "--http-port" not in container["command"]


def test_a_bound_of_the_context_is_an_argument_of_new_pods(tmp_path: Path) -> None:
    hd = objects.deployment(limits={"maxContextTokens": 4096})
    limits = configmap.limits_config_map(hd, 7, objects.serving_limits())
    (tmp_path / "limits.json").write_text(limits["data"]["limits.json"])
    command = _command(
        objects.revision(hd), {"/etc/helios/limits/limits.json": str(tmp_path / "limits.json")}
    )
    assert serve.parse(command[2:]).engine.max_context == 4096


@pytest.mark.parametrize("kind", [JobKind.INSPECT, JobKind.QUALITY])
def test_a_jobs_command_line_measures_and_its_result_is_read(kind: JobKind, tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "volumes/models/tiny", layers=4)
    (tmp_path / "prompts.json").write_text(json.dumps(_PROMPTS))
    candidate = Candidate("tiny", "pvc://models/tiny", exit_layers=(2,))
    asked = objects.job_spec(kind, candidates=(candidate,), prompts_digest=prompts_digest(_PROMPTS))
    job = profiling_job(objects.deployment(), asked, objects.CPU, objects.installation())
    result = tmp_path / "result.json"
    places = {
        "/volumes": str(tmp_path / "volumes"),
        "/etc/helios/prompts/prompts.json": str(tmp_path / "prompts.json"),
        "/dev/termination-log": str(result),
        "float16": "float32",
    }
    assert profile.main(_command(job, places)[2:]) == 0
    wanted = {JobKind.INSPECT: Inspection, JobKind.QUALITY: Quality}[kind]
    assert isinstance(results.read(result.read_text()), wanted)


def test_a_termination_message_is_written_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kubelet mounts the file: nothing can be put in its place."""
    message = tmp_path / "termination-log"
    message.touch()
    before = message.stat().st_ino
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == message)
    missing = json.dumps([{"name": "a", "uri": "file:///nowhere"}])
    argv = ["--kind", "inspect", "--candidates", missing, "--result", str(message), "--output", "json"]
    assert profile.main(argv) == 0
    assert message.stat().st_ino == before
    assert json.loads(message.read_text())["resolved"]["a"]["error"]


@pytest.mark.parametrize(
    ("service", "files"),
    [
        ({}, {}),
        ({"tls": {"secretName": "cert"}}, {"tls_cert": "tls.crt", "tls_key": "tls.key"}),
        (
            {"tls": {"secretName": "cert", "clientCASecretName": "ca"}},
            {"tls_cert": "tls.crt", "tls_key": "tls.key", "tls_client_ca": "ca.crt"},
        ),
        ({"auth": {"secretName": "callers"}}, {"auth_tokens": ""}),
    ],
)
def test_secrets_are_mounted_where_the_server_looks(
    service: dict[str, dict[str, str]], files: dict[str, str], tmp_path: Path
) -> None:
    """Whole, so that the kubelet replaces them; probes stay plain, whatever clients speak."""
    hd = objects.deployment(service=service)
    limits = configmap.limits_config_map(hd, 7, objects.serving_limits())
    (tmp_path / "limits.json").write_text(limits["data"]["limits.json"])
    manifest = objects.revision(hd)
    pod = manifest["spec"]["template"]["spec"]
    command = _command(manifest, {"/etc/helios/limits/limits.json": str(tmp_path / "limits.json")})
    config = serve.parse(command[2:])
    told = {"auth_tokens": config.auth_tokens}
    if config.tls:
        told |= {"tls_cert": config.tls.certificate, "tls_key": config.tls.key}
        told |= {"tls_client_ca": config.tls.client_ca}
    secrets = {each["name"]: each["secret"]["secretName"] for each in pod["volumes"] if "secret" in each}
    mounts = {each["mountPath"]: each for each in pod["containers"][0]["volumeMounts"]}
    asked = {
        "tls_cert": "cert",
        "tls_key": "cert",
        "tls_client_ca": "ca",
        "auth_tokens": "callers",
    }
    assert {name for name, path in told.items() if path} == set(files)
    for name, file in files.items():
        folder = told[name].parent if file else told[name]
        assert told[name].name == (file or folder.name)
        mount = mounts[str(folder)]
        assert secrets[mount["name"]] == asked[name]
        assert mount["readOnly"] is True
        assert "subPath" not in mount
    assert {
        pod["containers"][0][f"{kind}Probe"]["httpGet"].get("scheme", "HTTP")
        for kind in ("startup", "readiness", "liveness")
    } == {"HTTP"}
    assert config.control_token_file is not None


def _command(manifest: Manifest, places: dict[str, str]) -> list[str]:
    """The container's command, with the folders of the pod in their places on this machine."""
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    return [places.get(word, word) for word in container["command"]]


def _mounted(manifest: Manifest, volume: str) -> str:
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    return next(mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == volume)

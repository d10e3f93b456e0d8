"""docs/first-model.md and its file: a claim, a Job and an object, valid and restricted, that fit together."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from helios_cli.verbs import model as verb
from helios_operator.api import parse
from helios_operator.api.crds import API_VERSION
from helios_operator.api.documents import read
from helios_operator.api.validation import admit, warnings
from helios_operator.render import volumes

from tests.chart import chart
from tests.documentation.blocks import Block
from tests.manifests import assert_valid, restricted_violations

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "first-model.md").read_text()
FILE = ROOT / "examples" / "first-model.yaml"
CLAIM, JOB, OBJECT = read(FILE)
POD: dict[str, Any] = JOB["spec"]["template"]["spec"]
(FETCH,) = POD["containers"]


def test_what_the_file_holds_is_valid_and_restricted() -> None:
    assert [each["kind"] for each in (CLAIM, JOB, OBJECT)] == [
        "PersistentVolumeClaim",
        "Job",
        "HeliosDeployment",
    ]
    for manifest in (CLAIM, JOB):
        assert_valid(manifest)
    assert restricted_violations(POD) == []
    assert POD["automountServiceAccountToken"] is False
    assert not any("hostPath" in volume for volume in POD["volumes"])
    assert FETCH["resources"].keys() == {"requests", "limits"}
    assert OBJECT["apiVersion"] == API_VERSION
    assert warnings(OBJECT) == []


def test_a_fault_of_the_file_would_be_found() -> None:
    wrong = JOB | {"spec": JOB["spec"] | {"backOffLimit": 3}}
    with pytest.raises(AssertionError, match="backOffLimit"):
        assert_valid(wrong)
    context = {"securityContext": FETCH["securityContext"] | {"readOnlyRootFilesystem": False}}
    assert restricted_violations(POD | {"containers": [FETCH | context]})


def test_the_job_puts_the_model_where_the_object_looks_for_it() -> None:
    spec = parse.deployment(admit(OBJECT)).spec
    (candidate,) = spec.candidates
    _, command, name, out, target = FETCH["command"]
    assert (command, name, out) == ("model", verb._BUILT_IN, "--out")
    assert volumes.claims([candidate.uri]) == (CLAIM["metadata"]["name"],)
    assert target == candidate.uri.replace("pvc://", f"{volumes.ROOT}/")
    mounts = {mount["name"]: mount["mountPath"] for mount in FETCH["volumeMounts"]}
    claims = {each["name"]: each.get("persistentVolumeClaim", {}).get("claimName") for each in POD["volumes"]}
    assert mounts[next(name for name, claim in claims.items() if claim)] == str(Path(target).parent)
    assert set(claims.values()) == {CLAIM["metadata"]["name"], None}


def test_its_image_is_the_pods_own() -> None:
    (operator,) = chart.only(chart.render(), "Deployment")["spec"]["template"]["spec"]["containers"]
    assert FETCH["image"] in str(operator)


def test_the_object_is_that_of_the_quickstart() -> None:
    (quickstart,) = read(ROOT / "examples" / "quickstart.yaml")
    assert quickstart == OBJECT


def test_the_page_names_what_the_file_holds() -> None:
    commands = "\n".join(re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
    assert set(re.findall(r"\bjob/([\w-]+)", commands)) == {JOB["metadata"]["name"]}
    assert set(re.findall(r"examples/\S+\.yaml", commands)) == {"examples/first-model.yaml"}
    given = {
        *(each["configMapRef"]["name"] for each in FETCH["envFrom"]),
        *(each["valueFrom"]["secretKeyRef"]["name"] for each in FETCH["env"] if "valueFrom" in each),
    }
    assert set(re.findall(r"kubectl create (?:configmap|secret generic) (\S+)", commands)) == given
    sources = [*FETCH["envFrom"], *(each["valueFrom"] for each in FETCH["env"] if "valueFrom" in each)]
    assert all(next(iter(source.values()))["optional"] for source in sources)


def test_images_come_from_another_registry_by_the_line_of_the_page(documented: list[Block]) -> None:
    (block,) = documented
    edit, _, apply = block.text.partition(" | ")
    assert apply.strip() == "kubectl apply -f -"
    edited = subprocess.run(["/bin/sh", "-c", edit], cwd=ROOT, check=True, capture_output=True, text=True)
    was, now = (yaml.safe_load_all(text) for text in (FILE.read_text(), edited.stdout))
    changed = [(a, b) for a, b in zip(was, now, strict=True) if a != b]
    ((_, job),) = changed
    (fetch,) = job["spec"]["template"]["spec"]["containers"]
    assert fetch["image"].removeprefix("registry.internal/ml/") == FETCH["image"]


def test_the_policy_of_the_page_selects_the_jobs_pods(documented: list[Block]) -> None:
    (block,) = documented
    policy = yaml.safe_load(block.text)
    assert_valid(policy)
    selected = policy["spec"]["podSelector"]["matchLabels"]
    assert selected == JOB["spec"]["template"]["metadata"]["labels"]
    assert "ingress" not in policy["spec"]


def test_the_line_of_the_page_is_what_is_said(documented: list[Block]) -> None:
    """Numbers aside; tests/exits/test_mismatch.py holds the code to the same words."""
    (block,) = documented
    told, _, fix = block.text.strip().partition("; ")
    uri, digits = "pvc://models/mine", "[0-9a-f]{12}"
    expected = rf"was trained for a backbone with fingerprint {digits} \(expected\)"
    found = rf"{uri} has {digits} \(found\) and the same shape"
    assert re.fullmatch(f"builtin://general: {expected}, {found}", " ".join(told.split()))
    tune = f"helios tune {uri} TEXT --layers 24,27 --out DIR"
    assert fix == f"Use a bundle of this backbone, or train one: {tune}"

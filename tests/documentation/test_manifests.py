"""What the pages show of files: it is what the files hold, or what their readers take."""

from __future__ import annotations

import json
import re
import subprocess
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from helios_operator.api import parse
from helios_operator.api.documents import read
from helios_operator.api.validation import admit, warnings

from tests.documentation.blocks import ROOT, Block
from tests.manifests import assert_valid
from tests.render import objects
from tests.tools import promtool


def example(file: str, kind: str) -> Any:
    (found,) = (each for each in read(ROOT / "examples" / file) if each["kind"] == kind)
    return found


def test_variables_for_traces_are_taken_by_a_pod(documented: list[Block]) -> None:
    (block,) = documented
    spec = yaml.safe_load(block.text)["spec"]
    obj = example("quickstart.yaml", "HeliosDeployment")
    obj["spec"] |= spec
    assert warnings(obj) == []
    assert parse.deployment(admit(obj)).spec.template
    made = objects.revision(objects.deployment(template=spec["template"]))
    assert_valid(made)
    (server,) = (
        each for each in made["spec"]["template"]["spec"]["containers"] if each["name"] == "helios-server"
    )
    asked = spec["template"]["spec"]["containers"][0]["env"]
    assert [each for each in server["env"] if each["name"].startswith("OTEL_")] == asked


def test_the_pickers_configuration_is_that_of_the_example(documented: list[Block]) -> None:
    (block,) = documented
    picker = yaml.safe_load(example("gateway.yaml", "ConfigMap")["data"]["helios.yaml"])
    assert yaml.safe_load(block.text) == picker["plugins"][:2]


def test_kedas_query_is_that_of_the_example(documented: list[Block]) -> None:
    (block,) = documented
    (trigger,) = example("keda.yaml", "ScaledObject")["spec"]["triggers"]
    query = re.sub(r"{[^}]*}", "{…}", trigger["metadata"]["query"])
    assert block.text.split() == query.split()


def test_argo_ignores_what_an_autoscaler_writes(documented: list[Block]) -> None:
    (block,) = documented
    (told,) = yaml.safe_load(block.text)["ignoreDifferences"]
    crd = yaml.safe_load((ROOT / "crds" / "heliosdeployments.yaml").read_text())["spec"]
    assert (told["group"], told["kind"]) == (crd["group"], crd["names"]["kind"])
    scaled = crd["versions"][0]["subresources"]["scale"]["specReplicasPath"]
    assert told["jsonPointers"] == [scaled.replace(".", "/")]


def test_prometheus_reads_the_scraping(documented: list[Block], tmp_path: Path) -> None:
    (block,) = documented
    jobs = yaml.safe_load(block.text)
    for job in jobs:  # Debian's build finds nothing in Kubernetes
        (found,) = job.pop("kubernetes_sd_configs")
        assert found in ({"role": "pod"}, {"role": "endpoints"})
        job["static_configs"] = [{"targets": ["127.0.0.1:1"]}]
    file = tmp_path / "prometheus.yaml"
    file.write_text(yaml.safe_dump({"scrape_configs": jobs}))
    done = subprocess.run([promtool(), "check", "config", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "SUCCESS" in done.stdout


def test_what_it_writes_is_quoted_as_it_was_written(documented: list[Block]) -> None:
    """Of bench/results/outputs.json: a prompt's end, and what three depths make of it."""
    kept = json.loads((ROOT / "bench" / "results" / "outputs.json").read_text())["figures"]["outputs"]
    texts = iter([block.text.removesuffix("\n") for block in documented])
    quoted = [(first, *islice(texts, 3)) for first in texts]
    assert [len(each) for each in quoted] == [4] * 5
    for prompt, *outputs in quoted:
        (written,) = (each for each in kept if each["prompt"].endswith(prompt))
        assert outputs == [written["outputs"][depth] for depth in ("24", "27", "30")]

"""What docs/install.md and the pages for a cluster say to type, in the order of a cluster's life, by the real
helm and kubectl. No image is pulled: whether the operator's pod hears the API server is for the tier with
a node."""

from __future__ import annotations

import base64
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.live.scene import CRDS
from tests.cluster.on_node.release import fitting_chart, leniency
from tests.documentation.blocks import ROOT, Block, commands
from tests.documentation.shell import Shell
from tests.tools import helm, kubectl

MONITORING = {
    "ServiceMonitor": "servicemonitors",
    "PodMonitor": "podmonitors",
    "PrometheusRule": "prometheusrules",
}
"""Of the Prometheus operator, which the page expects; any content is one to us."""
TEAMS = ("team-a", "team-b")


def test_the_chart_comes_serves_and_goes(documented: list[Block], tmp_path: Path) -> None:
    annotate, monitors, install, watch_two, serve, upgrade, uninstall, remove, by_hand, tokens = documented
    with reader(tmp_path) as shell:
        type_all(shell, remove)  # other tests' CRDs are nobody's release
        type_all(shell, install)
        assert "deployed" in shell.run("helm status helios --namespace helios-system")
        monitoring(shell)
        type_all(shell, monitors)
        found = shell.run("kubectl get podmonitors,servicemonitors,prometheusrules,configmaps -A -o name")
        assert len(re.findall(r"helios", found)) >= 4, found
        type_all(shell, upgrade)
        served(shell, serve, by_hand, annotate)
        type_all(shell, tokens)
        secret = json.loads(shell.run("kubectl get secret chat-callers -o json"))["data"]
        drawn = {base64.b64decode(value).decode() for value in secret.values()}
        assert (set(secret), len(drawn)) == ({"alice", "batch"}, 2)
        assert all(re.fullmatch(r"[0-9a-f]{64}", token) for token in drawn)
        shell.run("kubectl delete secret chat-callers")
        type_all(shell, uninstall)
        assert "chat" in shell.run("kubectl get hd -o name")  # with its CRDs, it stays
        for team in TEAMS:
            shell.run(f"kubectl create namespace {team}")
        type_all(shell, watch_two)
        for team in TEAMS:
            assert "helios" in shell.run(f"kubectl get rolebindings -n {team} -o name")
        type_all(shell, uninstall)
        type_all(shell, remove)
        assert "helios.dev" not in shell.run("kubectl get crds -o name")


def served(shell: Shell, serve: Block, by_hand: Block, annotate: Block) -> None:
    """An object is applied, an operator run by hand looks at it, and it is paused and let go."""
    apply, watch, why = commands(serve.text)
    shell.run(apply)
    watching = shell.start(watch)
    watching.until("chat")
    (operate,) = commands(by_hand.text)
    operator = shell.start(operate, "--http-host", "127.0.0.1", "--http-port", "0", "--poll-seconds", "1")
    operator.until("listening on")
    shell.run("kubectl wait hd/chat --for=condition=Ready=False --timeout=120s")
    watching.until("False")
    watching.end()
    assert "chat serves nothing" in shell.run(why)
    hold, let_go = commands(annotate.text)
    shell.run(hold)
    shell.run(
        "kubectl wait hd/chat --for=jsonpath={.metadata.annotations.helios\\\\.dev/paused}=true --timeout=60s"
    )
    shell.run(let_go)
    assert "helios.dev/paused" not in shell.run("kubectl get hd chat -o jsonpath={.metadata.annotations}")
    operator.interrupt()


@contextmanager
def reader(folder: Path) -> Iterator[Shell]:
    """A checkout, helm and kubectl; afterwards the cluster is as the other tests expect it."""
    (folder / "older").mkdir()
    for name in ("deploy", "examples"):
        (folder / name).symlink_to(ROOT / name)
    chart = "deploy/helm/helios"
    tools = {str(tool.parent) for tool in (helm(), kubectl())}
    path = ":".join([*tools, str(Path(sys.executable).parent), os.environ["PATH"]])
    replaced = {chart: " ".join([str(fitting_chart(folder / "older")), *leniency()])}
    with Shell(folder, replaced, PATH=path, HELIOS_STATE="/nonexistent") as shell:
        crds = f"kubectl apply --server-side --validate=false -f {CRDS}"
        shell.run(f"{crds} && kubectl wait --for=condition=Established -f {CRDS} --timeout=60s")
        try:
            yield shell
        finally:
            gone = [*TEAMS, "helios-system"]
            shell.run(f"kubectl delete namespace --ignore-not-found {' '.join(gone)}")
            names = [f"{plural}.monitoring.coreos.com" for plural in MONITORING.values()]
            shell.run(f"kubectl delete crd --ignore-not-found {' '.join(names)}")
            shell.run(crds)


def type_all(shell: Shell, block: Block) -> None:
    for command in commands(block.text):
        shell.run(command)


def monitoring(shell: Shell) -> None:
    file = shell.folder / "monitoring.yaml"
    file.write_text(yaml.safe_dump_all([_crd(kind, plural) for kind, plural in MONITORING.items()]))
    shell.run(f"kubectl apply -f {file}")
    shell.run(f"kubectl wait --for=condition=Established -f {file} --timeout=60s")


def _crd(kind: str, plural: str) -> dict[str, Any]:
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": anything}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.monitoring.coreos.com"},
        "spec": {
            "group": "monitoring.coreos.com",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "scope": "Namespaced",
            "versions": [version],
        },
    }

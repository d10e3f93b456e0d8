"""What the installation decides for every HeliosDeployment: the chart's values, as the operator's arguments.

Made once by the operator at its start (`add_arguments`, `installation`), read by the modules of `render`. It
holds no secret and nothing that a HeliosDeployment can say for itself.
"""

from __future__ import annotations

from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from dataclasses import dataclass


@dataclass(frozen=True)
class Installation:
    """`server_image` goes into a revision when it is created and the user's template names none; an upgrade
    of the operator changes it for later revisions only.

    `client_namespaces`, `metrics_namespaces`: who may reach the Generation and the metrics ports of serving
    pods; empty: everyone. They count only with `network_policies`.
    """

    server_image: str
    operator_namespace: str
    operator_name: str
    """app.kubernetes.io/instance of the operator's pods."""
    image_pull_policy: str = "IfNotPresent"
    network_policies: bool = True
    client_namespaces: tuple[str, ...] = ()
    metrics_namespaces: tuple[str, ...] = ()


def add_arguments(parser: ArgumentParser) -> None:
    add = parser.add_argument
    policies = ("Always", "IfNotPresent", "Never")
    add("--server-image", required=True, help="image of serving pods and profiling Jobs")
    add("--image-pull-policy", default="IfNotPresent", choices=policies)
    add("--operator-namespace", required=True, help="where this operator runs")
    add("--operator-name", required=True, help="app.kubernetes.io/instance of this operator's pods")
    add("--network-policies", action=BooleanOptionalAction, default=True, help="guard serving pods and Jobs")
    add("--client-namespace", action="append", default=[], help="may send requests; repeatable")
    add("--metrics-namespace", action="append", default=[], help="may scrape; repeatable")


def installation(arguments: Namespace) -> Installation:
    return Installation(
        server_image=arguments.server_image,
        operator_namespace=arguments.operator_namespace,
        operator_name=arguments.operator_name,
        image_pull_policy=arguments.image_pull_policy,
        network_policies=arguments.network_policies,
        client_namespaces=tuple(arguments.client_namespace),
        metrics_namespaces=tuple(arguments.metrics_namespace),
    )

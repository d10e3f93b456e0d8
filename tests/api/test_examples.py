"""Every object in examples/ is admitted as it stands, and no field of it is ignored."""

from __future__ import annotations

from pathlib import Path

import pytest
from helios_operator.api import parse
from helios_operator.api.crds import API_VERSION
from helios_operator.api.documents import read
from helios_operator.api.validation import admit, warnings

FILES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_an_example_is_admitted_and_parsed(file: Path) -> None:
    objects = [obj for obj in read(file) if obj["apiVersion"] == API_VERSION]
    deployments = [obj for obj in objects if obj["kind"] == "HeliosDeployment"]
    assert len(deployments) == 1
    for obj in objects:
        assert warnings(obj) == []
        admit(obj)
    assert parse.deployment(admit(deployments[0])).spec.model_name


def test_the_examples_of_a_catalogue_are_those_that_its_deployment_selects() -> None:
    objects = [admit(obj) for obj in read(next(file for file in FILES if file.name == "catalogue.yaml"))]
    models = [parse.model(obj) for obj in objects if obj["kind"] == "HeliosModel"]
    deployment = parse.deployment(next(obj for obj in objects if obj["kind"] == "HeliosDeployment"))
    selector = deployment.spec.candidate_selector
    assert selector is not None
    assert len(models) == 3
    assert all(selector.match_labels.items() <= model.labels.items() for model in models)

"""The images' recipes: one base that the user may choose, nothing fetched, nobody's root."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.chart import chart

DOCKER = chart.ROOT / "deploy/docker"
RECIPES = sorted(DOCKER.glob("*.Dockerfile"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_an_image_is_built_on_the_base_that_is_asked_for_without_a_network(recipe: Path) -> None:
    text = recipe.read_text()
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {"${BASE}"}
    assert re.search(r"^ARG BASE=python:3\.\d+-slim", text, re.MULTILINE)
    assert re.findall(r"pip install (\S+)", text) == ["--no-index"]
    assert not re.search(r"apt-get|curl|wget|https?:", text)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_an_image_names_its_user_by_a_number_that_is_not_roots(recipe: Path) -> None:
    """A kubelet that is told `runAsNonRoot`, and no id, refuses a name: it cannot know whose it is."""
    users = re.findall(r"^USER (.*)$", recipe.read_text(), re.MULTILINE)
    assert users == ["65532:65532"]


def test_manifests_start_what_the_images_have() -> None:
    assert all('ENTRYPOINT ["helios"]' in recipe.read_text() for recipe in RECIPES)
    (container,) = chart.only(chart.render(), "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["command"][0] == "helios"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "client"], "only: client is not an image"),
        (["--tag"], "--tag: has no value"),
        (["--push"], "--push: is not an option"),
    ],
)
def test_the_build_refuses_what_it_does_not_know(arguments: list[str], words: str) -> None:
    _refused("build", arguments, words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "NAME: is missing"),
        (["--suite"], "--suite: has no value"),
        (["--pull", "x"], "--pull: is not an option"),
    ],
)
def test_so_does_the_making_of_a_base(arguments: list[str], words: str) -> None:
    _refused("base", arguments, words)


def _refused(script: str, arguments: list[str], words: str) -> None:
    command = [str(DOCKER / script), "--engine", "false", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert words in done.stderr

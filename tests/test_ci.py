"""What the repository asks of visitors and of the machine that tests it: files that a service reads."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
GITHUB = ROOT / ".github"
ISSUES = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
KINDS = {"checkboxes", "dropdown", "input", "markdown", "textarea"}


@pytest.mark.parametrize("path", ISSUES, ids=lambda path: path.stem)
def test_issue_forms_ask_for_the_command_and_the_version(path):
    form = yaml.safe_load(path.read_text())
    assert {"name", "description", "body"} <= set(form)
    fields = {field["id"]: field for field in form["body"]}
    assert {"command", "version"} <= set(fields) and len(fields) == len(form["body"])
    assert all(field["type"] in KINDS and field["attributes"]["label"] for field in form["body"])
    assert all(fields[name]["validations"]["required"] for name in ("command", "version"))
    assert re.search(r"`(pmdtheory|pmd-llm) --version`", fields["version"]["attributes"]["description"])


def test_the_workflow_runs_what_the_readme_says():
    """Every step has one thing to do, every target exists, and the commands of the wheel are those of the package."""
    flow = yaml.safe_load((GITHUB / "workflows" / "ci.yml").read_text())
    assert set(flow[True]) >= {"push", "pull_request"}  # YAML 1.1 reads the key `on` as a truth value
    steps = [step for job in flow["jobs"].values() for step in job["steps"]]
    assert all(("uses" in step) != ("run" in step) for step in steps)
    assert flow["jobs"]["test"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    scripts = "\n".join(step["run"] for step in steps if "run" in step)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)) | {"docs"}
    assert {"reproduce", "test"} <= set(re.findall(r"\bmake ([a-z-]+)", scripts)) <= targets
    readme = (ROOT / "README.md").read_text()
    assert all(f"make {target}" in readme for target in ("reproduce", "test"))


def test_the_commands_tried_on_the_wheel_run(capsys):
    from pmdtheory import cli

    text = (GITHUB / "workflows" / "ci.yml").read_text()
    commands = [line for line in re.findall(r"empty/bin/pmdtheory (.*)", text) if "--version" not in line]
    assert len(commands) == 2
    for line in commands:
        assert cli.main(line.partition(" > ")[0].split()) == 0

"""What GitHub is told to do, read as YAML: nothing in it names what does not exist.

It cannot be run here.
"""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from edge_eft.cli.main import Commands

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
WORKFLOWS = {path.stem: yaml.safe_load(path.read_text("utf-8")) for path in FILES}
JOBS = {f"{name}/{job}": it for name, flow in WORKFLOWS.items() for job, it in flow["jobs"].items()}
RUNS = [(job, step["run"]) for job, it in JOBS.items() for step in it["steps"] if "run" in step]
USES = {step["uses"] for it in JOBS.values() for step in it["steps"] if "uses" in step}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def test_there_are_tests_on_three_systems_and_a_release():
    assert set(WORKFLOWS) == {"tests", "release"}
    systems = {it["runs-on"].partition("-")[0] for it in JOBS.values()}
    assert systems == {"ubuntu", "macos", "windows"}


@pytest.mark.parametrize("action", sorted(USES))
def test_actions_are_pinned_to_a_major_version(action):
    assert re.fullmatch(r"[\w.-]+/[\w.-]+@(v\d+|release/v\d+)", action)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_may_read_and_no_more(name):
    """A job that writes says so itself."""
    assert WORKFLOWS[name]["permissions"] in ({}, {"contents": "read"})
    assert WORKFLOWS[name]["concurrency"]["group"].startswith(name)


def test_only_the_release_writes_and_only_pypi_gets_an_identity():
    rights = {job: it["permissions"] for job, it in JOBS.items() if "permissions" in it}
    assert rights == {
        "release/build": {"contents": "read"},
        "release/pypi": {"id-token": "write"},
        "release/github": {"contents": "write"},
    }
    assert WORKFLOWS["release"][True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads `on` as true


@pytest.mark.parametrize("job", JOBS)
def test_every_job_ends_in_time(job):
    assert JOBS[job]["timeout-minutes"] <= 90


@pytest.mark.parametrize(("job", "line"), RUNS, ids=[f"{job} {line[:30]}" for job, line in RUNS])
def test_a_step_names_what_exists(job, line):
    program, *words = shlex.split(line)
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    if program == "make":
        assert set(words) <= set(targets)
    elif program.endswith("/edge-eft"):
        assert words[0] in Commands.lazy
    elif words[:2] == ["-m", "edge_eft"]:
        assert words[2] in Commands.lazy
    elif words[:2] == ["-m", "pip"]:
        extras = re.findall(r"\.\[(\w+)\]", line)
        assert set(extras) <= set(PROJECT["optional-dependencies"])
    elif words[0] == "-m":
        assert words[1] in ("build", "pytest")
    elif program == "python":
        assert (ROOT / words[0]).is_file()
    else:
        assert (job, program) == ("release/github", "gh")


def test_what_the_checker_of_distributions_misses_it_says(tmp_path):
    tool = [sys.executable, str(ROOT / "tools" / "check_dist.py"), str(tmp_path)]
    done = subprocess.run([*tool, "--tag", "v9"], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"the tag is v9, and pyproject.toml says {PROJECT['version']}" in done.stderr
    assert "0 wheels and 0 sdists" in done.stderr

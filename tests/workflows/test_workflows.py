"""Test the workflows: valid, clean under two linters, pinned, with few permissions, and naming only what exists."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

CHECKOUT = Path(__file__).parents[2]
GITHUB = CHECKOUT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
ACTIONLINT = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12"

PINNED = re.compile(r"[\w.-]+(/[\w.-]+)+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
GRANT = re.compile(r" +[a-z-]+: (read|write) # \w.*")
MAKE_TARGET = re.compile(r"\bmake ([\w./-]+)")
MADE_BY_THE_RUN = {"terraform/azure/plan.txt", ".tools/promtool"}


def load(file: Path) -> dict[Any, Any]:
    loaded: dict[Any, Any] = yaml.safe_load(file.read_text())
    return loaded


def jobs() -> Iterator[tuple[str, dict[str, Any]]]:
    for file in WORKFLOWS:
        for name, job in load(file)["jobs"].items():
            yield f"{file.name}, {name}", job


def steps() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, job in jobs():
        for step in job.get("steps", []):
            yield f"{name}, {step.get('name', step.get('uses'))}", step


def lines(pattern: str) -> Iterator[tuple[str, str]]:
    for file in WORKFLOWS:
        for number, line in enumerate(file.read_text().splitlines(), 1):
            if re.match(pattern, line):
                yield f"{file.name}:{number}", line


def run(*command: str | Path) -> None:
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def tool(name: str) -> str:
    """Return a tool of this Python's environment."""
    return str(Path(sys.executable).with_name(name))


def test_there_are_workflows() -> None:
    """The list of workflows is not empty, or the tests below would check nothing."""
    names = {file.stem for file in WORKFLOWS}
    assert {"check", "images", "image", "deploy", "infrastructure", "model", "security"} <= names


def test_every_workflow_is_of_githubs_schema() -> None:
    """Every workflow satisfies the schema that SchemaStore publishes."""
    run(tool("check-jsonschema"), "--builtin-schema", "vendor.github-workflows", *WORKFLOWS)


def test_the_updates_are_of_renovates_schema() -> None:
    """renovate.json satisfies Renovate's own schema."""
    run(tool("check-jsonschema"), "--builtin-schema", "vendor.renovate", GITHUB / "renovate.json")


def test_zizmor_finds_nothing() -> None:
    """zizmor finds nothing, even in its pedantic mode."""
    run(tool("zizmor"), "--offline", "--strict-collection", "--persona", "pedantic", ".github")


@pytest.fixture(scope="session")
def actionlint() -> str:
    """Return actionlint, built once into .tools. Without Go skip the test; on GitHub fail it."""
    binaries = CHECKOUT / ".tools" / "go" / "bin"
    built = binaries / "actionlint"
    if built.exists():
        return str(built)
    if shutil.which("go") is None:
        give_up = pytest.fail if os.environ.get("GITHUB_ACTIONS") else pytest.skip
        give_up("actionlint is built with Go, which is not here")
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(Path.home()), "GOBIN": str(binaries)}
    go = shutil.which("go") or "go"
    subprocess.run((go, "install", ACTIONLINT), check=True, env=environment)
    return str(built)


def test_actionlint_finds_nothing(actionlint: str) -> None:
    """actionlint accepts expressions, contexts, inputs and outputs, and shellcheck accepts the scripts."""
    run(actionlint, "-shellcheck", tool("shellcheck"))


def test_shellcheck_finds_nothing_in_the_scripts() -> None:
    """shellcheck accepts the script files that workflows run."""
    run(tool("shellcheck"), *GITHUB.glob("*.sh"))


def test_every_action_is_pinned_by_its_commit_and_says_its_version() -> None:
    """Every action is pinned to a commit, because a tag can be moved, and a comment names its version."""
    used = list(lines(r"\s*(- )?uses: "))
    wrong = [
        f"{where}: {line.strip()}"
        for where, line in used
        if not PINNED.fullmatch(uses := line.partition("uses: ")[2])
        and not (uses.startswith("./") and (CHECKOUT / uses).is_file())
    ]
    assert len(used) > 20
    assert wrong == []


def test_one_action_has_one_commit() -> None:
    """An action has the same commit wherever it is used."""
    pins = {line.partition("uses: ")[2] for _, line in lines(r"\s*(- )?uses: [^.]")}
    versions = {(pin.partition("@")[0].split("/")[:2][-1], pin.partition("@")[2]) for pin in pins}
    assert len(versions) == len({action for action, _ in versions})


def test_nothing_is_granted_but_to_a_job_with_a_reason() -> None:
    """Workflows have no permissions, each job lists its own, and each permission has a reason beside it."""
    assert [file.name for file in WORKFLOWS if load(file)["permissions"] != {}] == []
    assert [name for name, job in jobs() if "permissions" not in job] == []
    assert [
        f"{where}: {line}" for where, line in lines(r" +[a-z-]+: (read|write)( |$)") if not GRANT.fullmatch(line)
    ] == []


def test_every_job_has_an_end_and_every_workflow_a_turn() -> None:
    """Every job has a timeout, and no two runs write the same thing at once."""
    assert [name for name, job in jobs() if "uses" not in job and "timeout-minutes" not in job] == []
    assert [file.name for file in WORKFLOWS if "concurrency" not in load(file)] == []


def test_nothing_from_outside_is_written_into_a_script() -> None:
    """Scripts contain no expressions: a title or a branch name in one would be run as a command."""
    assert [name for name, step in steps() if "${{" in step.get("run", "")] == []


def test_no_credentials_stay_in_a_checkout_but_where_one_pushes() -> None:
    """A checkout keeps no token that later steps could read, except where a job pushes."""
    checkouts = [(name, step) for name, step in steps() if step.get("uses", "").startswith("actions/checkout@")]
    kept = [name for name, step in checkouts if step["with"]["persist-credentials"] is not False]
    assert len(kept) == 1
    assert kept[0].startswith("deploy.yml")


def test_every_make_target_that_is_run_is_there() -> None:
    """Every make target that a workflow runs exists in the Makefile."""
    makefile = (CHECKOUT / "Makefile").read_text()
    run_targets = {target for _, step in steps() for target in MAKE_TARGET.findall(step.get("run", ""))}
    assert {"check", "test"} <= run_targets
    assert {target for target in run_targets if not re.search(rf"(?m)^{re.escape(target)}:", makefile)} == set()


def test_every_path_that_is_named_is_there() -> None:
    """Every path in a workflow exists, as a whole, as a pattern, or with an environment's name in it."""
    folders = tuple(f"{path.name}/" for path in CHECKOUT.iterdir() if path.is_dir())
    named = {path for file in WORKFLOWS for path in words(file) if path.removeprefix("./").startswith(folders)}
    missing = {path for path in named if not any(CHECKOUT.glob(path.rstrip("/")))}
    assert len(named) > 20
    assert missing - MADE_BY_THE_RUN == set()


def test_every_trigger_and_every_dockerfile_is_there() -> None:
    """Every path pattern and Dockerfile exists; a pattern that matches nothing would let a change pass unbuilt."""
    triggers = [load(file)[True] for file in WORKFLOWS]  # YAML 1.1 reads the key `on` as true
    events = [event for trigger in triggers for event in trigger.values() if isinstance(event, dict)]
    patterns = {path for event in events for path in event.get("paths", ())}
    entries = [entry for _, job in jobs() for entry in job.get("strategy", {}).get("matrix", {}).get("include", ())]
    files = {entry["file"] for entry in entries} | {
        job["with"]["file"] for _, job in jobs() if "file" in job.get("with", ())
    }
    named = patterns | {file for file in files if "${{" not in file}
    assert len(named) > 10
    assert {path for path in named if not any(CHECKOUT.glob(path))} == set()


def words(file: Path) -> list[str]:
    """Return the words of a workflow outside comments, with * for every expression."""
    code = re.sub(r"(?m)(^|\s)#.*$", "", file.read_text())
    return re.split(r"[\s\"'`;,=:\[\]()]+", re.sub(r"\$\{\{.*?\}\}|\$\w+", "*", code))


def test_what_a_workflow_installs_is_what_we_test_with() -> None:
    """A workflow installs a package in the version of the development environment."""
    installed = {pin for file in WORKFLOWS for pin in re.findall(r":all: ([\w-]+)==([\d.]+)", file.read_text())}
    pyproject = (CHECKOUT / "pyproject.toml").read_text()
    assert len(installed) > 1
    assert {(name, version) for name, version in installed if f'{name} = "{version}"' not in pyproject} == set()


def test_what_is_tried_is_what_is_published() -> None:
    """Pull requests build the same images from the same files as main."""
    matrices = [job["strategy"]["matrix"] for name, job in jobs() if name in ("images.yml, try", "images.yml, publish")]
    assert len(matrices) == 2
    assert matrices[0] == matrices[1]
    entries = [f"{entry['name']}{entry.get('variant', '')}" for entry in matrices[0]["include"]]
    assert sorted(entries) == ["gateway", "persistence", "transcriber", "triton", "triton-cpu"]


def test_compose_takes_what_is_published() -> None:
    """compose.yaml pulls images by the names and variants under which they are published."""
    (matrix,) = (job["strategy"]["matrix"] for name, job in jobs() if name == "images.yml, publish")
    published = {(entry["name"], entry.get("variant", ""), entry.get("build_args", "")) for entry in matrix["include"]}
    built = [service for service in load(CHECKOUT / "compose.yaml")["services"].values() if "build" in service]
    taken = {
        (*re.findall(r"/(\w+):\$\{WHISPERLINE_VERSION:-latest\}([\w-]*)$", service["image"])[0], arguments(service))
        for service in built
    }
    assert taken == published


def arguments(service: dict[str, Any]) -> str:
    """Return the build arguments of a service, as a workflow writes them."""
    return "\n".join(f"{name}={value}" for name, value in service["build"].get("args", {}).items())


def test_a_variant_is_not_promoted() -> None:
    """deploy.yml does not promote the digests of variants."""
    (kept,) = (step for _, step in steps() if "digest-" in step.get("with", {}).get("name", ""))
    assert kept["if"] == "inputs.variant == ''"


def test_an_environment_is_applied_by_its_own_plan() -> None:
    """If one environment cannot be planned, it is not applied, and the others still are."""
    found = dict(jobs())
    assert found["infrastructure.yml, apply"]["needs"] == "planned"
    assert "needs.planned.outputs" in found["infrastructure.yml, apply"]["strategy"]["matrix"]["environment"]
    assert "!cancelled()" in found["infrastructure.yml, planned"]["if"]


def test_what_no_plan_keeps_is_given_to_each() -> None:
    """Every plan and apply gets the ephemeral variable; only the jobs that apply have the secret."""
    text = (CHECKOUT / "terraform/azure/variables.tf").read_text()
    ephemeral = re.findall(r'variable "(\w+)" \{(?:(?!\n\}).)*?ephemeral += true', text, re.DOTALL)
    found = dict(jobs())
    for name in ephemeral:
        assert "secrets." in found["infrastructure.yml, apply"]["env"][f"TF_VAR_{name}"]
        assert "secrets." not in found["infrastructure.yml, plan"]["env"][f"TF_VAR_{name}"]
    assert ephemeral == ["postgresql_password"]


def test_a_promotion_waits_for_its_environment() -> None:
    """A job that changes Azure or an environment's file runs in that environment, which may require approval."""
    guarded = {name: job.get("environment") for name, job in jobs()}
    assert guarded["deploy.yml, promote"] == "${{ inputs.environment }}"
    assert guarded["infrastructure.yml, apply"] == "${{ matrix.environment }}"

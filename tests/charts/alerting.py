"""Run promtool, and read a chart's rules as promtool reads them."""

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from rendering import REPOSITORY, Object, of_kind

DOWNLOADED = REPOSITORY / ".tools" / "promtool"  # by `make .tools/promtool`


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run promtool. If it is missing, skip the test; on CI, fail it."""
    found = shutil.which("promtool") or (str(DOWNLOADED) if DOWNLOADED.is_file() else None)
    if found is None:
        message = "promtool is not here: `make .tools/promtool` gets it from Debian's package prometheus"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
    return subprocess.run(
        [found, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )


def groups(objects: Iterable[Object]) -> list[dict[str, Any]]:
    """Return the groups of all PrometheusRules among objects."""
    return [group for rule in of_kind(objects, "PrometheusRule") for group in rule["spec"]["groups"]]


def rules(objects: Iterable[Object]) -> dict[str, dict[str, Any]]:
    """Return the alerts among objects, by name."""
    return {rule["alert"]: rule for group in groups(objects) for rule in group["rules"]}


def outcomes(folder: Path, tests: Iterable[Path], found: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Run files of promtool's unit tests, whose `rule_files` is rules.yaml, over groups of rules.

    Returns what promtool says of each file, by its name without suffix: SUCCESS, or what was wrong.
    """
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": list(found)}))
    copies = [shutil.copy(test, folder) for test in tests]
    parts = promtool("test", "rules", *copies).stdout.split("Unit Testing:  ")[1:]
    return {Path(name).stem: said.strip() for name, _, said in (part.partition("\n") for part in parts)}

"""Export the model that Triton serves with the exporter of `model_repository/`, unless it is in the cache."""

import hashlib
import re
import shutil
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from whisperline_local.assets import publish, scratch_folder
from whisperline_local.errors import StepFailed
from whisperline_local.process import ReportStep, ignore_step, run_tool
from whisperline_local.settings import LocalSettings

EXPORTER = "whisperline_models"
KEPT_EXPORTS = 3  # exports kept for each model; older ones are removed


def exported_repository(settings: LocalSettings) -> Path:
    """Return the path of the Triton model repository of `settings.model`, which may not exist yet.

    An export contains the serving code beside the weights, so each version of the exporter's source has its own export.
    """
    file_name = re.sub(r"[^\w.-]", "_", settings.model)
    return settings.cache / "models" / f"{file_name}-{exporter_digest()}"


async def export_model(settings: LocalSettings, report_step: ReportStep = ignore_step) -> None:
    """Export `settings.model`, unless it is in the cache."""
    repository = exported_repository(settings)
    if repository.exists():
        return
    with scratch_folder(repository.parent) as scratch:
        where = ("--repository", str(scratch / "repository"), "--cache", str(settings.cache))
        exporter = (sys.executable, "-m", EXPORTER, "init", settings.model, *where)
        log = settings.logs / "export-model.log"
        await run_tool(f"exporting the model {settings.model}", exporter, log, report_step)
        publish(scratch / "repository", repository)
    exports = repository.parent.glob(f"{repository.name.rpartition('-')[0]}-*")
    for old in sorted(exports, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT_EXPORTS:]:
        shutil.rmtree(old, ignore_errors=True)


@cache
def exporter_digest() -> str:
    """Return a digest of the exporter's source."""
    spec = find_spec(EXPORTER)
    if spec is None or spec.origin is None:
        raise StepFailed("exporting the model", f"the package {EXPORTER} is not installed", hint="Run `make`.")
    sources = (path for path in Path(spec.origin).parent.rglob("*") if path.suffix in {".py", ".pbtxt"})
    digest = hashlib.sha256()
    for path in sorted(sources):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]

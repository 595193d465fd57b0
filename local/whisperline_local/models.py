"""The model that Triton serves, made by the exporter of `model_repository/` when it is not in the cache."""

import shutil
import sys
from pathlib import Path

from whisperline_local.process import run_tool
from whisperline_local.settings import LocalSettings


async def export_model(settings: LocalSettings, repository: Path) -> None:
    """Export `settings.model` into a Triton model repository at this path, unless it is there."""
    if repository.exists():
        return
    unfinished = repository.with_name(f".unfinished-{repository.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    exporter = (sys.executable, "-m", "whisperline_models", "export", settings.model, "--output", str(unfinished))
    await run_tool(f"exporting the model {settings.model}", exporter, settings.logs / "export.log")
    unfinished.rename(repository)

"""Triton Inference Server from the wheel `nvidia-pytriton`, which carries the whole server.

Its Python backend runs the model in a process of its own, the stub. The stub ignores PYTHONPATH and takes its
packages from the environment of the first `python3` on PATH, so PATH must begin with this environment.
"""

import asyncio
import ctypes.util
import os
import platform
import shutil
import sys
import sysconfig
import time
from functools import partial
from pathlib import Path

import psutil

from whisperline_local import probes
from whisperline_local.assets import TRITON, fetch
from whisperline_local.errors import StepFailed, first_error_of_tasks
from whisperline_local.models import export_model, exported_repository
from whisperline_local.ports import PortUse
from whisperline_local.process import ReportStep, ignore_step
from whisperline_local.service import Service, trace_env
from whisperline_local.settings import HOST, LocalSettings

MODEL = "whisper"
MODELS = (MODEL, "whisper_rollout")  # the second says which version of the first serves a session
SERVER = "pytriton/tritonserver"
STUB = "triton_python_backend_stub"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
LIBRARY = f"libpython{PYTHON}.so.1.0"
EXIT_LIMIT_S = 5
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory is
SHARED_MEMORY_NAME = "triton_python_backend_shm_region_*"
STALE_S = 60.0  # a younger region may belong to a server whose stub is still starting


def triton_service(settings: LocalSettings) -> Service:
    """Return the inference server, which is healthy once it has loaded the models."""
    server = settings.cache / TRITON.folder / SERVER
    ports = settings.ports
    return Service(
        name="triton",
        command=(
            # Its threads compute without a pause under load. The processes that carry audio and text need little time,
            # but at once.
            "nice",
            f"--adjustment={settings.triton_nice}",
            str(server / "bin/tritonserver"),
            f"--model-repository={model_repository(settings)}",
            f"--backend-directory={server / 'backends'}",
            "--model-control-mode=explicit",  # lets a rollout load and unload versions by request
            *(f"--load-model={model}" for model in MODELS),
            "--grpc-header-forward-pattern=traceparent",  # the model's spans are children of the sender's
            "--disable-auto-complete-config",  # nothing is missing, and completion would start the stub twice
            f"--exit-timeout-secs={EXIT_LIMIT_S}",
            *(f"--{kind}-address={HOST}" for kind in ("http", "grpc", "metrics")),
            f"--http-port={ports.triton_http}",
            f"--grpc-port={ports.triton_grpc}",
            f"--metrics-port={ports.triton_metrics}",
        ),
        env={
            **trace_env(settings, "triton", "triton"),
            "PATH": f"{Path(sys.prefix) / 'bin'}:{os.environ.get('PATH', os.defpath)}",
            "LD_LIBRARY_PATH": f"{python_library_folder()}:{server.parents[1] / 'nvidia_pytriton.libs'}",
        },
        ports=(
            PortUse("triton", ports.triton_http, "triton_http_port"),
            PortUse("triton", ports.triton_grpc, "triton_grpc_port"),
            PortUse("triton", ports.triton_metrics, "triton_metrics_port"),
        ),
        prepare=partial(prepare_triton, settings),
        ready=partial(models_ready, ports.triton_http),
        start_limit_s=120.0,
        stop_limit_s=EXIT_LIMIT_S + 5.0,
        unready_limit_s=3.0,
        hint=f"{settings.model_repository} must hold {' and '.join(MODELS)}: see `whisperline models init`."
        if settings.model_repository
        else f"If the model is broken: remove {exported_repository(settings)}, it will be exported again.",
    )


def model_repository(settings: LocalSettings) -> Path:
    """Return the folder that Triton serves models from."""
    return settings.model_repository or exported_repository(settings)


async def models_ready(http_port: int, pid: int) -> bool:
    """Return True if the models are ready and their stubs live. Triton itself calls a model ready without its stub."""
    if not stubs_live(pid):
        return False
    return all([await probes.http_ok(http_port, f"/v2/models/{model}/ready") for model in MODELS])


def stubs_live(pid: int) -> bool:
    """Return True if a Triton process has stubs and none is dead. Stubs that Triton itself ended do not count."""
    try:
        children = [child for child in psutil.Process(pid).children() if child.name().startswith(STUB[:15])]
        return bool(children) and all(child.status() != psutil.STATUS_ZOMBIE for child in children)
    except psutil.NoSuchProcess:
        return False


async def fetch_server(settings: LocalSettings, report_step: ReportStep = ignore_step) -> None:
    """Fetch the server, and put the stub for this Python where the server looks for it.

    Raises `StepFailed` if this machine cannot run it.
    """
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise StepFailed("preparing Triton", "its wheel is for Linux on x86-64 only")
    if not (python_library_folder() / LIBRARY).exists() and ctypes.util.find_library(f"python{PYTHON}") is None:
        hint = f"Install it (Debian, Ubuntu: apt-get install libpython{PYTHON}), or use a Python that has it."
        raise StepFailed("preparing Triton", f"its Python backend needs {LIBRARY}, which is not here", hint=hint)
    server = await fetch(TRITON, settings, report_step) / SERVER
    stub = server / "backends/python" / STUB
    if not stub.exists():
        # Another process may do the same at once: copy to a name of its own, then rename.
        unfinished = stub.with_name(f"{STUB}.{os.getpid()}")
        shutil.copy(server / "python_backend_stubs" / PYTHON / STUB, unfinished)
        unfinished.rename(stub)


async def prepare_triton(settings: LocalSettings, report_step: ReportStep) -> None:
    """Fetch the server, and export the model unless a repository was given."""
    remove_stale_shared_memory()
    with first_error_of_tasks():
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fetch_server(settings, report_step))
            if settings.model_repository is None:
                tasks.create_task(export_model(settings, report_step))


def remove_stale_shared_memory() -> None:
    """Remove the shared memory of killed servers, because containers have little and nothing else removes it.

    A region in use is named in the command line of its stub.
    """

    def is_stale(region: Path) -> bool:
        try:
            status = region.stat()
        except FileNotFoundError:
            return False
        return status.st_uid == os.geteuid() and time.time() - status.st_mtime > STALE_S

    regions = [path for path in SHARED_MEMORY.glob(SHARED_MEMORY_NAME) if is_stale(path)]
    if not regions:
        return  # without listing every process
    in_use = {word for process in psutil.process_iter(["cmdline"]) for word in process.info["cmdline"] or ()}
    for region in regions:
        if region.name not in in_use:
            region.unlink(missing_ok=True)


def python_library_folder() -> Path:
    """Return the folder of the shared library of this Python."""
    return Path(sysconfig.get_config_var("LIBDIR"))

"""Triton Inference Server from the wheel `nvidia-pytriton`, which carries the whole server.

Its Python backend runs the model in a process of its own, the stub. The stub ignores PYTHONPATH; it takes its
packages from the environment of the first `python3` on PATH, so that PATH begins with this environment.
"""

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
from whisperline_local.errors import StepFailed
from whisperline_local.models import export_model, exported_repository
from whisperline_local.ports import PortUse
from whisperline_local.process import Tell, tell_nobody
from whisperline_local.service import Service
from whisperline_local.settings import HOST, LocalSettings
from whisperline_local.together import together

MODEL = "whisper"
MODELS = (MODEL, "whisper_rollout")  # the second tells which version of the first serves a session
SERVER = "pytriton/tritonserver"
STUB = "triton_python_backend_stub"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
LIBRARY = f"libpython{PYTHON}.so.1.0"
EXIT_LIMIT_S = 5
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory is
SHARED_MEMORY_NAME = "triton_python_backend_shm_region_*"
STALE_S = 60.0


def triton_service(settings: LocalSettings) -> Service:
    """The inference server with the model loaded."""
    server = settings.cache / TRITON.folder / SERVER
    http, grpc, metrics = (settings.port(f"triton_{kind}_port") for kind in ("http", "grpc", "metrics"))
    return Service(
        name="triton",
        command=(
            str(server / "bin/tritonserver"),
            f"--model-repository={model_repository(settings)}",
            f"--backend-directory={server / 'backends'}",
            "--model-control-mode=explicit",
            *(f"--load-model={model}" for model in MODELS),
            "--grpc-header-forward-pattern=traceparent",  # the model's spans are children of the sender's
            "--disable-auto-complete-config",  # it is complete, and to ask the stub would start the stub twice
            f"--exit-timeout-secs={EXIT_LIMIT_S}",
            *(f"--{kind}-address={HOST}" for kind in ("http", "grpc", "metrics")),
            f"--http-port={http}",
            f"--grpc-port={grpc}",
            f"--metrics-port={metrics}",
        ),
        env={
            "PATH": f"{Path(sys.prefix) / 'bin'}:{os.environ.get('PATH', os.defpath)}",
            "LD_LIBRARY_PATH": f"{_python_library_folder()}:{server.parents[1] / 'nvidia_pytriton.libs'}",
        },
        ports=tuple(
            PortUse("triton", settings.port(name), name)
            for name in ("triton_http_port", "triton_grpc_port", "triton_metrics_port")
        ),
        prepare=partial(_prepare, settings),
        ready=partial(_ready, http),
        start_limit_s=120.0,
        stop_limit_s=EXIT_LIMIT_S + 5.0,
        unready_limit_s=3.0,
        hint=f"{settings.model_repository} must hold {' and '.join(MODELS)}: see `whisperline models init`."
        if settings.model_repository
        else f"If the model is broken: remove {exported_repository(settings)}, it will be exported anew.",
    )


def model_repository(settings: LocalSettings) -> Path:
    """The folder that Triton serves models from."""
    return settings.model_repository or exported_repository(settings)


async def _ready(http_port: int, pid: int) -> bool:
    """Tell whether the models are ready and their stubs live: this server goes on to call one without a stub ready."""
    if not stubs_live(pid):
        return False
    return all([await probes.http_ok(http_port, f"/v2/models/{model}/ready") for model in MODELS])


def stubs_live(pid: int) -> bool:
    """Tell whether a Triton process has stubs and all of them live; those that it ended itself it has let go."""
    try:
        children = [child for child in psutil.Process(pid).children() if child.name().startswith(STUB[:15])]
        return bool(children) and all(child.status() != psutil.STATUS_ZOMBIE for child in children)
    except psutil.NoSuchProcess:
        return False


async def fetch_server(settings: LocalSettings, tell: Tell = tell_nobody) -> None:
    """Fetch the server, and put the stub for this Python where the server looks for it."""
    _check_machine()
    server = await fetch(TRITON, settings, tell) / SERVER
    stub = server / "backends/python" / STUB
    if not stub.exists():
        unfinished = stub.with_name(f"{STUB}.{os.getpid()}")
        shutil.copy(server / "python_backend_stubs" / PYTHON / STUB, unfinished)
        unfinished.rename(stub)


async def _prepare(settings: LocalSettings, tell: Tell) -> None:
    remove_stale_shared_memory()
    if settings.model_repository is None:
        await together(fetch_server(settings, tell), export_model(settings, tell))
    else:
        await fetch_server(settings, tell)


def remove_stale_shared_memory() -> None:
    """Remove the shared memory of servers that were killed: containers have little, and nobody else would.

    A region in use is named in the command line of its stub; a stub that starts names its own within moments.
    """
    regions = [path for path in SHARED_MEMORY.glob(SHARED_MEMORY_NAME) if _is_stale(path)]
    if not regions:
        return
    in_use = {word for process in psutil.process_iter(["cmdline"]) for word in process.info["cmdline"] or ()}
    for region in regions:
        if region.name not in in_use:
            region.unlink(missing_ok=True)


def _is_stale(region: Path) -> bool:
    try:
        status = region.stat()
    except FileNotFoundError:
        return False
    return status.st_uid == os.geteuid() and time.time() - status.st_mtime > STALE_S


def _check_machine() -> None:
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise StepFailed("preparing Triton", "its wheel is for Linux on x86-64 only")
    if not (_python_library_folder() / LIBRARY).exists() and ctypes.util.find_library(f"python{PYTHON}") is None:
        hint = f"Install it (Debian, Ubuntu: apt-get install libpython{PYTHON}), or use a Python that has it."
        raise StepFailed("preparing Triton", f"its Python backend needs {LIBRARY}, which is not here", hint=hint)


def _python_library_folder() -> Path:
    return Path(sysconfig.get_config_var("LIBDIR"))

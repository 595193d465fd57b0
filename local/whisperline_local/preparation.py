"""Everything that has to be fetched or made once for all state folders, without starting anything."""

from collections.abc import Awaitable, Callable

from whisperline_local.assets import demo_speech, voice_activity_model
from whisperline_local.kafka import fetch_broker, find_java
from whisperline_local.models import export_model
from whisperline_local.process import Tell
from whisperline_local.runner import Report, State
from whisperline_local.settings import LocalSettings
from whisperline_local.together import together
from whisperline_local.triton import fetch_server


async def prepare(settings: LocalSettings, report: Report) -> None:
    """Fill the cache, all parts at the same time; what is there already takes no time.

    Raises `StepFailed` for the first part that fails.
    """
    parts: dict[str, Callable[[Tell], Awaitable[object]]] = {
        "java": lambda _: find_java(settings),
        "kafka": lambda tell: fetch_broker(settings, tell),
        "triton": lambda tell: fetch_server(settings, tell),
        "model": lambda tell: export_model(settings, tell),
        "voice activity": lambda tell: voice_activity_model(settings, tell),
        "demo speech": lambda tell: demo_speech(settings, tell),
    }
    await together(*(_reported(name, part, report) for name, part in parts.items()))


async def _reported(name: str, part: Callable[[Tell], Awaitable[object]], report: Report) -> None:
    report(name, State.PREPARING, "")
    await part(lambda step: report(name, State.PREPARING, step))
    report(name, State.DONE, "")

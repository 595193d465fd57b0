import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import soundfile
import typer
from loopback import LoopbackGateway, serving
from rich.console import Console
from typer.testing import CliRunner
from whisperline_client import commands, events, terminal

CLI = CliRunner()


def test_a_missing_file() -> None:
    """For a missing file the command prints one line of error and exits with 1."""
    result = CLI.invoke(commands.app, ["stream", "nowhere.wav"])
    assert result.exit_code == 1
    assert "no such file" in result.output


def test_a_wrong_url(tmp_path: Path) -> None:
    """The error about a wrong URL shows a valid one."""
    result = CLI.invoke(commands.app, ["stream", str(_silence(tmp_path)), "--url", "ftp://a"])
    assert result.exit_code == 1
    assert "ws://127.0.0.1:8080" in result.output


def _silence(folder: Path) -> Path:
    soundfile.write(folder / "silence.wav", [0.0] * 800, 16_000)
    return folder / "silence.wav"


def test_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, `whisperline mic` names the command that installs it."""
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    result = CLI.invoke(commands.app, ["mic"])
    assert result.exit_code == 1
    assert "client[mic]" in result.output


def test_groups_of_other_packages() -> None:
    """A package's entry point becomes a group of commands; one that cannot be loaded does not stop the rest."""
    app = typer.Typer()
    names = [("broken", "no_such_module:app"), ("speech", "whisperline_client.commands:app")]
    commands.add_groups(app, [EntryPoint(name, value, commands.COMMANDS_GROUP) for name, value in names])
    result = CLI.invoke(app, ["speech", "--help"])
    assert "mic" in result.output
    assert CLI.invoke(app, ["broken"]).exit_code != 0


def final(index: int, text: str, *, speech_final: bool = True, delay_s: float | None = None) -> events.Final:
    return events.Final(index, 61_200, 63_000, text, (), 0.9, speech_final, from_finalize=False, delay_s=delay_s)


EVENTS: list[events.Event] = [
    events.Started("s", "c", "secret"),
    events.Partial(0, 61_200, 62_000, "ask not what", "ask not"),
    events.Ack(800, "secret"),
    events.Disconnected("the gateway closed with 1012", 0.25),
    final(0, "Ask not.", delay_s=0.425),
    events.Closed("s", 63_000, 1, 2),
]


async def test_ctrl_c_ends_the_audio_and_not_the_session(gateway: LoopbackGateway, tmp_path: Path) -> None:
    """After Ctrl-C the command sends no more audio, waits for the last finals, and succeeds."""
    soundfile.write(tmp_path / "long.wav", [0.0] * 16_000 * 120, 16_000)
    program = "from whisperline_client.commands import main; main()"
    async with serving(gateway) as url, asyncio.timeout(30):
        command = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program, "stream", str(tmp_path / "long.wav"), "--json", "--url", url),
            stdout=asyncio.subprocess.PIPE,
        )
        assert command.stdout is not None
        kinds = []
        async for line in command.stdout:
            kinds.append(json.loads(line)["type"])
            if kinds[-1] == "Ack" and kinds.count("Ack") == 1:
                command.send_signal(signal.SIGINT)
        assert await command.wait() == 0
    assert kinds[-1] == "Closed"
    assert gateway.controls == ["CloseStream"]


class _Events:
    def __init__(self, sent: Sequence[events.Event] = EVENTS) -> None:
        self._events = iter(sent)

    def __aiter__(self) -> "_Events":
        return self

    async def __anext__(self) -> events.Event:
        try:
            return next(self._events)
        except StopIteration:
            raise StopAsyncIteration from None


async def test_what_stays_on_a_terminal() -> None:
    """Finals stay with their time and delay, partials do not; a lost connection is reported."""
    console = Console(record=True, width=80, force_terminal=False)
    closed = await terminal.show(_Events(), console)
    text = console.export_text()
    assert closed == EVENTS[-1]
    assert "01:01.2  Ask not.  +0.42 s" in text
    assert "ask not what" not in text
    assert "1012" in text


async def test_a_turn_is_a_line() -> None:
    """The finals of a turn are printed together when it ends, or when the stream does, with the delay of the last."""
    console = Console(record=True, width=80, force_terminal=False)
    sent = [
        final(0, "So it", speech_final=False, delay_s=0.25), final(1, "goes.", delay_s=0.5), final(2, ""),
        final(3, "And on", speech_final=False), final(4, ""), final(5, "and", speech_final=False),
    ]  # fmt: skip
    await terminal.show(_Events(sent), console)
    assert [line.strip() for line in console.export_text().splitlines() if line.strip()] == [
        "01:01.2  So it goes.  +0.50 s", "01:01.2  And on", "01:01.2  and",
    ]  # fmt: skip


async def test_json() -> None:
    """Each event is a line of JSON, without the tokens that would let others resume the session."""
    lines: list[str] = []
    await terminal.write_json(_Events(), lines.append)
    assert [json.loads(line)["type"] for line in lines] == [type(event).__name__ for event in EVENTS]
    assert "secret" not in "".join(lines)


def test_a_partial_shows_what_is_stable() -> None:
    """The stable beginning of a partial and its tail differ in style, and no character is lost."""
    text = terminal.partial_text(events.Partial(0, 0, 1, "ask not what", "ask not"))
    assert text.plain.endswith("ask not what")
    assert {str(span.style) for span in text.spans} >= {terminal.STABLE, terminal.UNSTABLE}


def test_a_partial_follows_its_turn() -> None:
    """While a turn goes on, a partial stands behind the finals of the turn."""
    text = terminal.partial_text(events.Partial(1, 63_000, 64_000, "what your", "what"), [final(0, "Ask not")])
    assert text.plain == "01:01.2  Ask not what your"
    empty = events.Partial(1, 63_000, 64_000, "", "")
    assert terminal.partial_text(empty, [final(0, "Ask not")]).plain == "01:01.2  Ask not"
    assert terminal.partial_text(empty).plain == ""

"""Show the stack in a terminal: the progress of its start, and the table of `whisperline-local status`."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table

from whisperline_local.runner import State

STYLES = {
    State.HEALTHY: "green",
    State.DONE: "green",
    State.FAILED: "bold red",
    State.RESTARTING: "yellow",
    State.UNREADY: "yellow",
    State.STOPPED: "dim",
}
AT_REST = frozenset({State.HEALTHY, State.DONE, State.FAILED, State.STOPPED})


class Progress:
    """Shows the states reported to it: in a live table inside its `with` block, as one line for each change after it.

    A console that is not a terminal always gets lines.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rows: dict[str, tuple[State, str, float]] = {}
        self._started_s = time.monotonic()
        self._live: Live | None = None

    def __call__(self, name: str, state: State, detail: str) -> None:
        """Show a service's new state."""
        at_s = time.monotonic() - self._started_s
        self._rows[name] = (state, detail, at_s)
        if self._live is not None:
            self._live.update(self._table())
        elif state in STYLES or detail:
            self._console.print(
                f"[dim]{at_s:6.1f} s[/]  {name:14} [{STYLES.get(state, 'cyan')}]{state}[/]  {detail}", highlight=False
            )

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(self._table(), console=self._console, refresh_per_second=8)
            self._live.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for name, (state, detail, at_s) in self._rows.items():
            mark = f"[{STYLES.get(state, 'white')}]✓[/]" if state in AT_REST else Spinner("dots")
            table.add_row(mark, name, f"[{STYLES.get(state, 'cyan')}]{state}[/]", f"[dim]{at_s:.1f} s[/]", detail)
        return table


def status_table(status: dict[str, list[dict[str, object]]]) -> Table:
    """Return the table of a stack's status file."""
    table = Table("service", "state", "process", "restarts", "ports", "log")
    for row in status["services"]:
        state = State(str(row["state"]))
        table.add_row(
            str(row["name"]),
            f"[{STYLES.get(state, 'cyan')}]{state}[/]",
            str(row["pid"] or ""),
            str(row["restarts"]),
            " ".join(map(str, row["ports"])) if isinstance(row["ports"], list) else "",
            str(row["log"]),
        )
    return table

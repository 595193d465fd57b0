"""Group the tests of every deployable for pytest-xdist, and leave out those that need a machine for themselves."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

CHECKOUT = Path(__file__).parent
MODELS = "model_repository"
SHAPES = f"{MODELS}/tests/test_shapes.py"
SPEECH, PARTS = "speech", "parts"
FIRST, LAST = (MODELS, SHAPES), (SPEECH, PARTS)  # the longest of each kind first


settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")  # a property does not fail because a machine is busy


def pytest_itemcollected(item: pytest.Item) -> None:
    """Name the group of a test, for pytest-xdist: it reads the groups before it hands out any test."""
    item.add_marker(pytest.mark.xdist_group(group_of(item)))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse to go on where pytest-xdist does not group: stacks of two processes would meet on the same ports."""
    if session.config.getoption("loadgroup", False) and any("@" not in item.nodeid for item in session.items):
        raise pytest.UsageError("pytest-xdist does not keep groups together with this pytest: pin another version")


@pytest.hookimpl(trylast=True)  # after pytest-randomly has put the tests in its order, which stays within a group
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs a machine for itself, and order the rest in groups that pytest-xdist keeps together."""
    if "large" not in (config.option.markexpr or ""):
        large = [item for item in items if item.get_closest_marker("large")]
        if large:
            config.hook.pytest_deselected(items=large)
            items[:] = [item for item in items if item not in large]
    groups = {item: group_of(item) for item in items}
    order = {group: number for number, group in enumerate(dict.fromkeys([*FIRST, *groups.values()]))}
    order |= {group: len(order) + number for number, group in enumerate(LAST)}
    items.sort(key=lambda item: (order[groups[item]], "stack" in getattr(item, "fixturenames", ())))


def group_of(item: pytest.Item) -> str:
    """Return the name of the group that a test runs in: with `--dist loadgroup`, one process runs a whole group.

    Stacks listen on fixed ports and cost hundreds of megabytes, so the tests that share one must run in one process.
    Live speech through whole stacks is one group and the tests of a part of it the other: these mostly wait for
    brokers and timeouts, and leave the processor to Whisper. They begin when the tests without a stack are done,
    because those are bound by the processor. Of these, what takes long to make is made once (exported models).
    """
    path = item.path.relative_to(CHECKOUT).as_posix()
    if item.get_closest_marker("integration"):
        return SPEECH if path.startswith("tests/") and not path.startswith("tests/charts/") else PARTS
    return MODELS if path.startswith(MODELS) and path != SHAPES else path


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> "Figure":
    """Note a line for the list of figures that is printed after the tests, passed or not."""
    return Figure(request.node)


class Figure:
    """Notes lines about a test. They travel with its report, so they arrive from other processes too."""

    def __init__(self, test: pytest.Item) -> None:
        self._test = test

    def __call__(self, line: str) -> None:
        """Note a line."""
        self._test.user_properties.append(("figure", line))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the tests measured."""
    reports = [report for found in terminalreporter.stats.values() for report in found if hasattr(report, "when")]
    lines = [
        str(line)
        for report in reports
        if report.when == "call"
        for name, line in report.user_properties
        if name == "figure"
    ]
    if lines:
        terminalreporter.section("figures")
        terminalreporter.write_line("\n".join(lines))

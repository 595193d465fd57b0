"""The rooms of the package: what each may import, and what a protocol is."""

import ast
from pathlib import Path

import pytest
import whisperline_gateway
from whisperline_gateway.protocol import protocols
from whisperline_gateway.protocol.deepgram.listen import DeepgramListen

PACKAGE = Path(whisperline_gateway.__file__).parent
ARROWS = {
    "errors": set(),
    "metrics": set(),
    "settings": set(),
    "kafka": set(),
    "protocol": {"errors"},
    "connection": {"errors", "metrics", "settings", "protocol"},
    "registry": {"errors", "metrics", "settings", "connection"},
    "gateway": {"metrics", "settings", "kafka", "connection", "registry"},
    "http": {"errors", "metrics", "settings", "protocol", "connection", "registry", "gateway"},
    "__main__": {"settings", "gateway", "http"},
    "__init__": set(),
}
IO = {"asyncio", "socket", "starlette", "fastapi", "uvicorn", "websockets", "aiokafka", "whisperline_runtime"}


def imports(module: Path) -> set[str]:
    """The full names of the modules that a module imports, and of what it imports from them."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("module", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(module: Path) -> None:
    """From http down to errors: no circles, and nothing below knows what is above."""
    room = module.relative_to(PACKAGE).parts[0].removesuffix(".py")
    names = {name.split(".")[1] for name in imports(module) if name.startswith("whisperline_gateway.")}
    assert names - {room} <= ARROWS[room]


@pytest.mark.parametrize("module", sorted((PACKAGE / "protocol").rglob("*.py")), ids=lambda path: path.name)
def test_protocols_do_no_io(module: Path) -> None:
    """A protocol is a pure translation."""
    assert {name.split(".")[0] for name in imports(module)} & IO == set()


def test_only_its_own_folder_knows_a_protocol() -> None:
    """The core speaks its own messages, so another protocol touches nothing else."""
    for folder in (PACKAGE / "protocol").iterdir():
        if folder.is_dir() and (folder / "__init__.py").is_file():
            name = f"whisperline_gateway.protocol.{folder.name}"
            others = [path for path in PACKAGE.rglob("*.py") if folder not in path.parents]
            assert not [path for path in others if any(found.startswith(name) for found in imports(path))]


def test_protocols_are_found_by_their_folder() -> None:
    """Each has a path of its own."""
    assert protocols() == {"/v1/listen": DeepgramListen}

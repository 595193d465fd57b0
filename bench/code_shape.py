"""Measure the shape of the production code: lengths, private helpers, comments, docstrings, modules and imports.

    make bench-code                        # this checkout
    make bench-code PEER=../other          # another one beside it, in the first column
    python bench/code_shape.py --list gateway    # the places behind a package's numbers: helpers used once, and riddles

The numbers are those that our style compares itself with other codebases by: a sign to steer by, not a limit. A
function's length goes from `def` to its last line, docstring included; methods and nested functions count. A function
is private when its name begins with one underscore, and used once when its module names it once besides its
definition. The table goes to bench/results/code.md.
"""

import argparse
import ast
import io
import statistics
import tokenize
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from clips import CHECKOUT
from report import console, heading, name_of, table, write

RIDDLES = {"What", "Whether", "Who", "How", "Where", "Which", "Why"}
SHORT_LINES, SMALL_MODULE_LINES = 4, 60
WHOLE = "whole"
AnyFunction = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Function:
    """A function or a method."""

    name: str
    line: int
    lines: int
    docstring: str | None
    uses: int  # of its name in its module

    @property
    def is_private(self) -> bool:
        return self.name.startswith("_") and not self.name.startswith("__")

    @property
    def is_used_once(self) -> bool:
        return self.is_private and self.uses == 1


@dataclass(frozen=True)
class Module:
    """A file of source, as far as it is measured."""

    path: Path
    name: str  # dotted, with its package
    lines: int
    comments: int
    functions: list[Function]
    docstrings: list[
        tuple[int, int, str]
    ]  # line, length in lines, and text: the module's, its classes', its functions'
    class_lines: list[int]
    imports: list[tuple[str, str]]  # module and name of each `from module import name`; `import module` has no name

    @classmethod
    def read(cls, path: Path, package: Path) -> "Module":
        """Parse a file of a package."""
        text = path.read_text()
        nodes = list(ast.walk(ast.parse(text)))
        uses = Counter(node.id for node in nodes if isinstance(node, ast.Name))
        uses += Counter(node.attr for node in nodes if isinstance(node, ast.Attribute))
        functions, docstrings, imports = [], [], []
        for node in nodes:
            if isinstance(node, AnyFunction):
                documented = ast.get_docstring(node)
                functions.append(Function(node.name, node.lineno, lines_of(node), documented, uses[node.name]))
            if isinstance(node, AnyFunction | ast.ClassDef | ast.Module) and (said := ast.get_docstring(node)):
                docstrings.append((node.body[0].lineno, lines_of(node.body[0]), said))
            if isinstance(node, ast.ImportFrom):
                imports += [(node.module or "", alias.name) for alias in node.names]
            if isinstance(node, ast.Import):
                imports += [(alias.name, "") for alias in node.names]
        return cls(
            path=path,
            name=".".join((package.name, *path.relative_to(package).with_suffix("").parts)).removesuffix(".__init__"),
            lines=len(text.splitlines()),
            comments=sum(
                each.type == tokenize.COMMENT for each in tokenize.generate_tokens(io.StringIO(text).readline)
            ),
            functions=functions,
            docstrings=docstrings,
            class_lines=[lines_of(node) for node in nodes if isinstance(node, ast.ClassDef)],
            imports=imports,
        )


def lines_of(node: ast.stmt) -> int:
    """Return how many lines a statement spans, decorators left out."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


@dataclass(frozen=True)
class Code:
    """The modules of a package, or of all packages."""

    modules: list[Module]

    @property
    def functions(self) -> list[Function]:
        return [function for module in self.modules for function in module.functions]

    @property
    def docstrings(self) -> list[tuple[int, int, str]]:
        return [docstring for module in self.modules for docstring in module.docstrings]

    @property
    def lines(self) -> int:
        return sum(module.lines for module in self.modules)

    def imports(self, depth: int) -> tuple[set[str], set[tuple[str, str]]]:
        """Return the rooms, and the pairs of different rooms of which the first imports from the second.

        A room is a dotted name cut to `depth` parts: 1 for packages, 2 for the modules and folders at a package's top.
        """
        names = {module.name for module in self.modules}
        pairs = set()
        for module in self.modules:
            for source, name in module.imports:
                target = f"{source}.{name}" if f"{source}.{name}" in names else source
                if target in names:
                    pairs.add((room_of(module.name, depth), room_of(target, depth)))
        rooms = {room_of(name, depth) for name in names if name.count(".") >= depth - 1}
        return rooms, {(importer, imported) for importer, imported in pairs if importer != imported}


def room_of(name: str, depth: int) -> str:
    """Return the first `depth` parts of a dotted name."""
    return ".".join(name.split(".")[:depth])


def packages_of(checkout: Path) -> dict[str, Code]:
    """Return the production packages of a checkout by the name of their folder, and all of them together."""
    found = {}
    for package in sorted(path.parent for path in checkout.glob("*/whisperline_*/__init__.py")):
        found[package.parent.name] = Code([Module.read(path, package) for path in sorted(package.rglob("*.py"))])
    return {**found, WHOLE: Code([module for code in found.values() for module in code.modules])}


def share(part: Sequence[object], whole: Sequence[object]) -> str:
    """Return a share in per cent."""
    return f"{100 * len(part) / len(whole):.0f} %" if whole else "-"


def median(values: Sequence[int]) -> str:
    """Return the median, rounded up."""
    return str(statistics.median_high(values)) if values else "-"


def ninth_decile(values: Sequence[int]) -> str:
    """Return the value that nine in ten do not exceed."""
    return str(sorted(values)[len(values) * 9 // 10]) if values else "-"


def documented(functions: Sequence[Function]) -> str:
    """Return the share of the functions that have a docstring."""
    return share([function for function in functions if function.docstring], functions)


def riddles(docstrings: Sequence[tuple[int, int, str]]) -> list[tuple[int, str]]:
    """Return line and text of the docstrings that ask instead of saying what the thing does."""
    return [(line, text) for line, _, text in docstrings if text.split()[0] in RIDDLES]


# What is measured of a package, in the order of the table.
MEASURES: dict[str, Callable[[Code], str]] = {
    "lines": lambda code: str(code.lines),
    "functions": lambda code: str(len(code.functions)),
    "function length, median": lambda code: median([function.lines for function in code.functions]),
    "function length, nine in ten under": lambda code: ninth_decile([function.lines for function in code.functions]),
    "longest function": lambda code: str(max((function.lines for function in code.functions), default=0)),
    f"functions of at most {SHORT_LINES} lines": lambda code: share(
        [function for function in code.functions if function.lines <= SHORT_LINES], code.functions
    ),
    "private functions": lambda code: share([each for each in code.functions if each.is_private], code.functions),
    "private and used once": lambda code: share([each for each in code.functions if each.is_used_once], code.functions),
    "modules": lambda code: str(len(code.modules)),
    "module length, median": lambda code: median([module.lines for module in code.modules]),
    "module length, nine in ten under": lambda code: ninth_decile([module.lines for module in code.modules]),
    "longest module": lambda code: str(max(module.lines for module in code.modules)),
    f"modules under {SMALL_MODULE_LINES} lines": lambda code: share(
        [module for module in code.modules if module.lines < SMALL_MODULE_LINES], code.modules
    ),
    "longest class": lambda code: str(max((n for module in code.modules for n in module.class_lines), default=0)),
    "comments in 100 lines": lambda code: f"{100 * sum(module.comments for module in code.modules) / code.lines:.1f}",
    "docstrings": lambda code: str(len(code.docstrings)),
    "docstrings that are riddles": lambda code: str(len(riddles(code.docstrings))),
    "docstrings, share of lines": lambda code: f"{100 * sum(n for _, n, _ in code.docstrings) / code.lines:.0f} %",
    "public functions with a docstring": lambda code: documented(
        [function for function in code.functions if not function.name.startswith("_")]
    ),
    "private functions with a docstring": lambda code: documented(
        [function for function in code.functions if function.is_private]
    ),
    "rooms; imports between them": lambda code: "; ".join(str(len(found)) for found in code.imports(depth=2)),
}
KEY_MEASURES = [name for name in MEASURES if name not in ("functions", "docstrings", "docstrings, share of lines")]


def main() -> None:
    """Measure one checkout or two and write the tables, or list what lies behind the numbers of a package."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, help="another checkout, to stand in the table first")
    parser.add_argument("--list", metavar="PACKAGE", help="show the helpers used once and the riddles of this package")
    chosen = parser.parse_args()
    if chosen.list is not None:
        show(packages_of(CHECKOUT)[chosen.list])
        return
    checkouts = {name_of(path): packages_of(path) for path in (chosen.peer, CHECKOUT) if path is not None}
    whole = [
        [name, *(measure(packages[WHOLE]) for packages in checkouts.values())] for name, measure in MEASURES.items()
    ]
    lines = ["All production packages. The columns are commits.", "", *table(["", *checkouts], whole)]
    for commit, packages in checkouts.items():
        rows = [[name, *(MEASURES[name](code) for code in packages.values())] for name in KEY_MEASURES]
        lines += [f"## Each package at {commit}", "", *table(["", *packages], rows)]
        folders, imports = packages[WHOLE].imports(depth=1)
        lines += [f"{len(folders)} packages with {len(imports)} imports between them.", ""]
    command = "make bench-code" + (" PEER=..." if chosen.peer else "")
    write("code", [*heading("The shape of the code", command), *lines])


def show(code: Code) -> None:
    """Print the places of helpers that are used once and of riddles."""
    for module in code.modules:
        place = module.path.relative_to(CHECKOUT)
        for function in module.functions:
            if function.is_used_once:
                console.print(
                    f"{place}:{function.line} {function.name} is used once, {function.lines} lines", markup=False
                )
        for line, text in riddles(module.docstrings):
            console.print(f"{place}:{line} riddle: {text.partition(chr(10))[0]}", markup=False)


if __name__ == "__main__":
    main()

"""usage: python tests/house.py [--quiet]

Prints how long the modules, classes and functions of container/ and deployment/ are, what share of
each package is comments, and which package imports which. Ends with 1 where a limit is broken;
`--quiet` prints only then.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.test_imports import PACKAGE, PACKAGES, package, source
from tests.test_imports import imported as names_imported

ROOT = Path(__file__).parent.parent
FOLDERS = ("container", "deployment")

MODULE, LONG_MODULE, LONG_MODULES = 300, 250, 5  # lines, lines, and how many may have more
CLASS, FUNCTION = 200, 40  # lines

# Code whose order matters to what other threads, processes or the kernel do: a comment says why.
HARD = {"Lock", "RLock", "Condition", "Event", "fork", "pthread_sigmask", "setsockopt", "prctl"}


@dataclass(frozen=True)
class Piece:
    """A class or function that is too long."""

    place: str
    name: str
    lines: int


def modules() -> list[Path]:
    return [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def too_long(path: Path) -> Iterator[Piece]:
    """Yield the classes and functions of a module that are longer than they may be."""
    limits = {ast.ClassDef: CLASS, ast.FunctionDef: FUNCTION, ast.AsyncFunctionDef: FUNCTION}
    for node in ast.walk(ast.parse(path.read_text())):
        if type(node) in limits:
            assert isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > limits[type(node)]:
                yield Piece(f"{path.relative_to(ROOT)}:{node.lineno}", node.name, lines)


def comments(path: Path) -> int:
    """Count the lines that are or end in a comment."""
    with path.open("rb") as file:
        return sum(token.type == tokenize.COMMENT for token in tokenize.tokenize(file.readline))


def is_hard(path: Path) -> bool:
    names = {
        getattr(node, "attr", getattr(node, "id", ""))
        for node in ast.walk(ast.parse(path.read_text()))
    }
    return bool(names & HARD)


def lengths() -> int:
    """Print what is long; return how many limits are broken."""
    sizes = {path: len(path.read_text().splitlines()) for path in modules()}
    long = sorted((size, path) for path, size in sizes.items() if size > LONG_MODULE)
    print(f"modules above {LONG_MODULE} lines (at most {LONG_MODULES}, none above {MODULE}):")
    for size, path in reversed(long):
        print(f"  {size:4}  {path.relative_to(ROOT)}")
    pieces = [piece for path in modules() for piece in too_long(path)]
    print(f"classes above {CLASS} and functions above {FUNCTION} lines:")
    for piece in sorted(pieces, key=lambda one: -one.lines):
        print(f"  {piece.lines:4}  {piece.name}  {piece.place}")
    broken = sum(size > MODULE for size, _ in long) + len(pieces)
    return broken + (len(long) > LONG_MODULES)


def shares() -> int:
    """Print the share of comments; return how many hard modules have none."""
    totals: dict[str, list[int]] = {}
    for path in modules():
        total = totals.setdefault(str(path.parent.relative_to(ROOT)), [0, 0])
        total[0] += comments(path)
        total[1] += len(path.read_text().splitlines())
    print("lines with comments:")
    for folder, (count, lines) in totals.items():
        if lines:
            print(f"  {100 * count / lines:4.1f} %  {folder}")
    bare = [path for path in modules() if is_hard(path) and not comments(path)]
    print("modules with locks, forks, signals or socket options and without a comment:")
    for path in bare:
        print(f"  {path.relative_to(ROOT)}")
    return len(bare)


def graph() -> int:
    """Print which package imports which; return 1 for a cycle, and 1 for each arrow up."""
    arrows: dict[str, set[str]] = {name: set() for name in PACKAGES if name}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        module = ".".join(parts).removesuffix(".__init__")
        if package(module) and source(module):
            named = {one.removeprefix("skserve.") for one in names_imported(module)}
            arrows[package(module)] |= {package(one) for one in named} - {package(module), ""}
    print("packages:")
    for name, below in arrows.items():
        print(f"  {name} -> {', '.join(sorted(below)) or 'none'}")
    up = [(name, one) for name, below in arrows.items() for one in below - PACKAGES[name]]
    for name, one in up:
        print(f"  an arrow up: {name} -> {one}")
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        print(f"  a cycle: {' -> '.join(error.args[1])}")
        return len(up) + 1
    return len(up)


if __name__ == "__main__":
    printed = io.StringIO()
    with redirect_stdout(printed):
        broken = lengths() + shares() + graph()
    if broken or "--quiet" not in sys.argv:
        print(printed.getvalue(), end="")
        print(f"{broken} limits are broken" if broken else "every limit holds")
    sys.exit(bool(broken))

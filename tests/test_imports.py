"""Who may know whom: the direction of imports, and one door for each foreign library."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "container" / "skserve"

# From the bottom up: a module imports only from the lines above its own.
LAYERS = [
    {"__init__", "errors"},
    {"config", "archive", "crowd", "telemetry", "methods", "bounds", "helper", "wire", "output"},
    {"orphans", "privileges", "spool"},
    {"columns", "media", "answer"},
    {"schema", "accelerate.kernel", "accelerate.jobs"},
    {"accelerate.columnwise", "accelerate.linear", "accelerate.neighbours", "accelerate.trees"},
    {"accelerate.boosting"},
    {"accelerate.compose", "accelerate.proof"},
    {"accelerate"},
    {"sparse", "table"},
    {"arrays", "columnar", "delimited", "libsvm", "recordio", "artifact"},
    {"compression", "encoders"},
    {"decoders"},
    {"codec", "source", "portions"},
    {"hooks", "estimator", "header"},
    {"script"},
    {"transform"},
    {"model", "relay", "batching"},
    {"registry"},
    {"cell", "fleet"},
    {"zygote"},
    {"keeper"},
    {"body", "master"},
    {"app"},
    {"worker", "models"},
    {"server"},
    {"training", "training.job", "training.recipe", "training.data", "training.plots"},
    {"training.child", "training.script", "training.evaluation"},
    {"training.failure", "training.report"},
    {"training.fit", "train"},
    {"__main__"},
]
DOORS = {
    "flask": {"app", "models"},
    "werkzeug": {"app"},
    "gunicorn": {"body", "master", "server", "worker"},
    "joblib": {"artifact", "zygote"},
    "skops": {"artifact"},
    "boto3": {"source"},
    "botocore": {"source"},
    "orjson": {"columnar", "decoders", "delimited", "encoders", "helper", "wire"},
    "pyarrow": {"columnar"},
    "pandas": {"estimator", "methods", "table", "training.data"},
    "threadpoolctl": {"bounds"},
    "sklearn": {
        "artifact",
        "zygote",
        "training.recipe",
        "training.evaluation",
        "training.report",
        "training.fit",
    },
    "scipy": {"accelerate.linear", "sparse"},
}
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
)


def source(module: str) -> str:
    """Return the text of a module, or of a package's own file."""
    path = PACKAGE / module.replace(".", "/")
    return (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()


def imported(module: str) -> set[str]:
    """Return the dotted names that a module imports anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source(module))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_one_way(module):
    (level,) = [number for number, layer in enumerate(LAYERS) if module in layer]
    below = set().union(*LAYERS[:level]) if level else set()
    named = {
        name.removeprefix("skserve.") for name in imported(module) if name.startswith("skserve.")
    }
    ours = named & set(MODULES) - {module, module.rpartition(".")[0]}

    assert ours <= below, f"{module} may not import {sorted(ours - below)}"


@pytest.mark.parametrize("module", MODULES)
def test_each_foreign_library_has_one_door(module):
    roots = {name.split(".")[0] for name in imported(module)}

    assert {root for root in roots if module not in DOORS.get(root, {module})} == set()


@pytest.mark.parametrize("module", MODULES)
def test_the_environment_is_an_argument(module):
    text = source(module)

    assert ("os.environ" in text or "getenv" in text) == (module == "__main__")


@pytest.mark.parametrize("module", ["server", "train"])
def test_what_is_slow_to_import_is_not_imported_at_the_start(module):
    code = f"import skserve.{module}, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=True,
    )

    loaded = set(done.stdout.split())
    assert loaded.isdisjoint({"pandas", "boto3", "scipy", "sklearn", "joblib", "skops"})

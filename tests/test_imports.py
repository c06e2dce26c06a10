"""Which package imports from which, and which modules import each foreign library."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "container" / "skserve"

# Which packages each package may import from, beside itself and the modules at the top.
PACKAGES = {
    "": set(),
    "estimators": set(),
    "formats": {"estimators"},
    "inference": {"formats", "estimators"},
    "scheduling": {"inference", "formats"},
    "multi_model": {"scheduling", "inference", "formats"},
    "serving": {"multi_model", "scheduling", "inference", "formats"},
    "training": {"inference", "formats", "estimators"},
    "selftest": {"inference", "formats", "estimators"},
}
IMPORTERS = {
    "flask": {
        "serving.routes",
        "serving.description_routes",
        "serving.invocation",
        "serving.multi_model_api",
    },
    "werkzeug": {
        "serving.routes",
        "serving.body",
        "serving.description_routes",
        "serving.invocation",
    },
    "gunicorn": {"serving.gunicorn_base", "serving.arbiter", "serving.worker"},
    "httptools": {"serving.connection"},
    "prometheus_client": {"serving.metrics"},
    "joblib": {"inference.artifact", "inference.memory_mapped", "multi_model.warm_up"},
    "skops": {"inference.artifact"},
    "boto3": {"inference.source"},
    "botocore": {"inference.source"},
    "orjson": {
        "formats.message_framing",
        "formats.json_text",
    },
    "pyarrow": {"formats.arrow"},
    "pandas": {
        "estimators.frame",
        "estimators.methods",
        "formats.conform",
        "inference.estimator_handler",
        "selftest.alone",
        "training.cells",
        "training.channel",
        "training.parquet_files",
    },
    "threadpoolctl": {"scheduling.native_threads"},
    "sklearn": {
        "inference.artifact",
        "inference.fitted",
        "multi_model.warm_up",
        "training.recipe",
        "training.evaluation",
        "training.metrics",
        "training.report",
        "training.fit",
    },
    "scipy": {"estimators.accelerate.blocks", "estimators.accelerate.links", "formats.sparse"},
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


def package(module: str) -> str:
    """Return the package that a module is in; the modules at the top are in none."""
    first = module.partition(".")[0]
    return first if first in PACKAGES else ""


@pytest.mark.parametrize("module", [name for name in MODULES if name != "__main__"])
def test_a_package_imports_only_from_those_below_it(module):
    named = {
        name.removeprefix("skserve.") for name in imported(module) if name.startswith("skserve.")
    }
    others = {package(name) for name in named} - {package(module), ""}

    assert others <= PACKAGES[package(module)]


def test_the_packages_are_all_there_and_none_is_in_a_circle():
    assert {package(name) for name in MODULES} == set(PACKAGES)
    TopologicalSorter(PACKAGES).prepare()  # raises CycleError


@pytest.mark.parametrize("module", MODULES)
def test_each_foreign_library_is_imported_by_these_modules_alone(module):
    roots = {name.split(".")[0] for name in imported(module)}

    assert {root for root in roots if module not in IMPORTERS.get(root, {module})} == set()


@pytest.mark.parametrize("module", MODULES)
def test_the_environment_is_an_argument(module):
    text = source(module)

    assert ("os.environ" in text or "getenv" in text) == (module == "__main__")


@pytest.mark.parametrize("module", ["serving.server", "training.supervise"])
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
    slow = {"pandas", "boto3", "scipy", "sklearn", "joblib", "skops", "skserve.multi_model"}
    assert loaded.isdisjoint(slow)

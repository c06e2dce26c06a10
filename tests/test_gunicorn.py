"""What of gunicorn is used: to be read again when its pin is raised."""

from __future__ import annotations

import ast
import re

import pytest

from skserve.serving.arbiter import Arbiter
from skserve.serving.gunicorn_base import Application, Log
from skserve.serving.multi_model_app import MultiModelApplication
from skserve.serving.single_model_app import SingleModelApplication
from skserve.serving.worker import Worker
from tests.conftest import ROOT
from tests.test_imports import MODULES, source

# The names that are imported, and why.
IMPORTED = {
    "gunicorn.app.base.BaseApplication": "the settings and the application, without a command line",
    "gunicorn.arbiter": "the master: starts, counts, replaces and stops the workers",
    "gunicorn.errors.HaltServer": "how the master's loop is told to end",
    "gunicorn.glogging.Logger": "its log, which is sent on to ours",
    "gunicorn.workers.base": "the worker that one of our own stands on, as its documentation says",
}

# The members that are overridden, and why.
OVERRIDDEN = {
    Worker: {
        "__init__": "takes a place in the balancer, in the master",
        "init_signals": "listens from here on to the signals that the master held back",
        "notify": "once a second is enough, and a worker that hangs says so",
        "run": "is to be overridden",
    },
    Arbiter: {
        "APP_LOAD_ERROR": "a script may end its process with 4",
        "WORKER_BOOT_ERROR": "a script may end its process with 3",
        "__init__": "remembers how workers ended",
        "init_signals": "a script may have blocked them while it was loaded",
        "murder_workers": "called at every turn of the loop: looks after the zygote as well",
        "reap_workers": "notes how workers ended, and which could not start",
        "spawn_worker": "holds signals back that a new worker would lose",
        "stop": "lets no new connection in before the workers look for the last time",
    },
    Application: {
        "__init__": "is given its settings",
        "load_config": "is to be overridden",
        "run": "starts our arbiter, and says why a worker could not start",
    },
    SingleModelApplication: {
        "__init__": "is given the model",
        "load": "is to be overridden",
    },
    MultiModelApplication: {
        "__init__": "is given the supervisor of the models",
        "load": "is to be overridden",
    },
    Log: {"setup": "has no handlers of its own"},
}

# How the classes above are called where another stands on them.
BASES = ("base.Worker", "arbiter.Arbiter", "BaseApplication", "Application", "Logger")

# Names of packages whose private names are theirs alone.
FOREIGN = ("flask", "werkzeug", "gunicorn", "httptools")


def imports(module: str) -> set[str]:
    """Return the full names of what a module imports from the foreign packages."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source(module))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {name for name in names if name.split(".")[0] in FOREIGN}


def test_these_names_of_gunicorn_are_imported_and_no_others():
    found = {name for module in MODULES for name in imports(module)}

    assert {name for name in found if name.startswith("gunicorn")} == set(IMPORTED)


@pytest.mark.parametrize("kind", OVERRIDDEN, ids=lambda kind: kind.__name__)
def test_these_members_of_gunicorn_are_overridden_and_no_others(kind):
    theirs = [base for base in kind.__mro__[1:] if base.__module__.startswith("gunicorn.")]
    inherited = {name for base in theirs for name in vars(base)} - {"__doc__", "__module__"}

    assert theirs
    assert inherited & set(vars(kind)) == set(OVERRIDDEN[kind])


def test_every_class_that_stands_on_gunicorn_is_listed():
    found = set()
    for module in MODULES:
        for node in ast.walk(ast.parse(source(module))):
            if isinstance(node, ast.ClassDef) and any(
                ast.unparse(base) in BASES for base in node.bases
            ):
                found.add(node.name)

    assert found == {kind.__name__ for kind in OVERRIDDEN}


@pytest.mark.parametrize("module", MODULES)
def test_no_private_name_of_a_foreign_package_is_imported(module):
    parts = [part for name in imports(module) for part in name.split(".")]

    assert [part for part in parts if part.startswith("_")] == []


# Names with an underscore that are read of something else than `self`, and why. The fast paths read
# scikit-learn's as well: they are compared with the estimator's own answers at each load.
PRIVATE = {
    "os._exit": "is documented",
    "atexit._run_exitfuncs": "Python itself calls it only after the threads that scripts left",
    "_style._hides": "is the module's own",
    "learned._with": "is the class's own",
    "frame._cells": "is the class's own",
    "frame._columns": "is the class's own",
    "frame._listed": "is the class's own",
}


READERS = [
    path
    for folder in ("container", "deployment", "local_test")
    for path in (ROOT / folder).rglob("*.py")
    if "accelerate" not in path.parts
]


def private(tree: ast.AST) -> set[ast.Attribute]:
    """Return the places where a name with an underscore is read or set."""
    nodes = {node for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return {node for node in nodes if re.match("_(?!_|replace$|asdict$|fields$)", node.attr)}


def foreign(tree: ast.AST) -> set[str]:
    """Return the private names that are of something else than the class they are named in."""
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    inside = {node for one in classes for node in private(one)}
    own = {node for node in inside if re.match(r"(self|cls)\._", ast.unparse(node))}
    return {ast.unparse(node) for node in private(tree) - own}


def test_no_private_name_of_a_foreign_object_is_read():
    assert {name for path in READERS for name in foreign(ast.parse(path.read_text()))} == set(
        PRIVATE
    )

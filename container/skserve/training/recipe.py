"""From hyperparameters to an estimator that is not fitted yet.

A recipe is `sklearn.module.Class`, or `{"sklearn.module.Class": {parameters}}`, or a list of such
for a Pipeline; recipes may stand among parameters too. Names are looked up in a table of what
scikit-learn makes public, and nothing is ever imported by a name that a caller sent.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import cache
from typing import Any

from skserve.errors import StartError

# No-code mode's own hyperparameters; all others are parameters of the estimator.
OWN = ("estimator", "target", "header", "folds")


def build(hyperparameters: Mapping[str, Any]) -> Any:
    """Return the estimator that the hyperparameters describe. Raises StartError."""
    estimator = _made(hyperparameters["estimator"])
    given = {name: value for name, value in hyperparameters.items() if name not in OWN}
    known = estimator.get_params(deep=True)
    for name in given:
        if name not in known:
            raise StartError(
                f"{type(estimator).__name__} has no parameter {name}; {_near(name, list(known))}. "
                f"No-code training itself takes {', '.join(OWN)}."
            )
    return estimator.set_params(
        **{name: _fitting(_part(value), known[name]) for name, value in given.items()}
    )


@cache
def public() -> dict[str, type]:
    """Return scikit-learn's public estimators by their dotted names."""
    from sklearn.utils import all_estimators

    return {f"{made.__module__.split('._')[0]}.{name}": made for name, made in all_estimators()}


def _made(recipe: Any) -> Any:
    """Make the estimator of one recipe."""
    if isinstance(recipe, str):
        return _instance(recipe, {})
    if isinstance(recipe, list) and recipe:
        from sklearn.pipeline import make_pipeline

        return make_pipeline(*map(_made, recipe))
    if isinstance(recipe, dict) and len(recipe) == 1:
        ((name, parameters),) = recipe.items()
        if isinstance(parameters, dict):
            return _instance(name, parameters)
    raise StartError(
        f"estimator is {str(recipe)[:200]!r}; expected a name such as sklearn.svm.SVC, "
        '{"sklearn.svm.SVC": {"C": 10}}, or a list of these for a Pipeline.'
    )


def _instance(name: str, parameters: Mapping[str, Any]) -> Any:
    found = public().get(name)
    if found is None:
        last = name.rpartition(".")[2].lower()
        same = [known for known in public() if known.rpartition(".")[2].lower() == last]
        hint = f"did you mean {same[0]}" if same else _near(name, list(public()))
        raise StartError(
            f"{name!r} is not an estimator of scikit-learn's public API; {hint}? A class of your "
            "own needs a script (sagemaker_program)."
        )
    try:
        return found(**{key: _part(value) for key, value in parameters.items()})
    except TypeError as error:
        raise StartError(
            f"{name} cannot be made: {error}. What it takes stands beside its name: "
            f'estimator={{"{name}": {{"parameter": value}}}}.'
        ) from error


def _part(value: Any) -> Any:
    """Make what stands among parameters: recipes become estimators, other values stay."""
    if _is_recipe(value):
        return _made(value)
    if isinstance(value, list):
        if value and all(map(_is_recipe, value)):
            return _made(value)
        return [_part(one) for one in value]
    return value


def _is_recipe(value: Any) -> bool:
    if isinstance(value, dict) and len(value) == 1:
        value = next(iter(value))
    return isinstance(value, str) and value.startswith("sklearn.")


def _fitting(value: Any, default: Any) -> Any:
    """JSON has no tuples, and some parameters must be one."""
    return tuple(value) if isinstance(value, list) and isinstance(default, tuple) else value


def _near(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1, cutoff=0.5)
    return f"did you mean {near[0]}" if near else f"known are {', '.join(sorted(known)[:30])}"

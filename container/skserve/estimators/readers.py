"""Which steps of a fitted model meet X, and whether they tell what they read of it."""

from __future__ import annotations

from typing import Any

from skserve.estimators.methods import fitted_steps, look

DEEP = 10  # nested deeper than any model seen, and no endless loop


def is_vectorizer(step: object) -> bool:
    """Whether `step` reads raw text: the vectorizers share a method that nothing else has."""
    return callable(look(step, "build_analyzer"))


def reads_dicts(step: object) -> bool:
    """Whether `step` reads a list of dicts, as a DictVectorizer does."""
    kinds = {base.__name__ for base in type(step).__mro__ if is_scikit_learn(base)}
    hashes = "FeatureHasher" in kinds and look(step, "input_type") == "dict"
    return hashes or "DictVectorizer" in kinds


def is_opaque(step: object) -> bool:
    """Whether `step` reads X in a way that it does not tell: a function, or a class of others.

    What was fitted on names or on a number of columns has told that much.
    """
    told = is_vectorizer(step) or reads_dicts(step) or look(step, "n_features_in_") is not None
    if told or fitted_steps(step):
        return False
    if is_function(step):
        return look(step, "func") is not None
    asked = callable(look(step, "predict")) or callable(look(step, "transform"))
    return asked and not is_scikit_learn(type(step))


def is_function(step: object) -> bool:
    """Whether `step` is a FunctionTransformer; without a function it hands X on."""
    return type(step).__name__ == "FunctionTransformer"


def first_step(estimator: object, deep: int = DEEP) -> object:
    """Follow pipelines, unions, searches and ensembles to the first step that tells what it reads.

    What was fitted on names or on a number of columns has told that. Of a class of others, only a
    model of texts that it holds is followed.
    """
    for left in range(deep, 0, -1):
        steps = fitted_steps(estimator)
        telling = [one for one in steps if not (is_opaque(one) or does_nothing(one))]
        told = look(estimator, "n_features_in_") is not None
        within = [look(estimator, "best_estimator_")] if told else members(estimator)
        found = [*telling, *union(estimator), *within]
        if not any(one is not None for one in found) and is_opaque(estimator):
            found = _vectorizers_within(estimator, left - 1)
        inner = next((one for one in found if one is not None), None)
        if inner is None:
            break
        estimator = inner
    return estimator


def _vectorizers_within(step: object, deep: int) -> list[Any]:
    """Return the vectorizers that meet X first in what `step` holds, if nothing else there does."""
    firsts = {id(one): first_step(one, deep) for one in held(step)}
    found = [first for first in firsts.values() if is_vectorizer(first)]
    behind = {None, *(look(one, "n_features") for one in found)}  # widths of what they put out
    behind |= {len(look(one, "vocabulary_") or ()) for one in found}
    others = [one for one in held(step) if not is_vectorizer(firsts[id(one)])]
    meets = [one for one in others if callable(look(one, "transform"))]
    return found if all(look(one, "n_features_in_") in behind for one in meets) else []


def held(step: object) -> list[Any]:
    """Return the estimators among the attributes of `step`, and in lists and dicts among them."""
    values = list(vars(step).values()) if hasattr(step, "__dict__") else []
    for value in list(values):
        if isinstance(value, list | tuple | dict):
            values += value.values() if isinstance(value, dict) else value
    return [
        one
        for one in values
        if not isinstance(one, type)
        and (callable(look(one, "transform")) or callable(look(one, "predict")))
    ]


def unsaid(estimator: object, deep: int = DEEP) -> list[object]:
    """Return the steps that meet X, in any part of `estimator`, and do not tell what they read."""
    steps = [one for one in fitted_steps(estimator) if not does_nothing(one)]
    inner = steps[:1] or [*union(estimator), *members(estimator)]
    if not inner:
        return [estimator] if is_opaque(estimator) else []
    return [found for one in inner if deep for found in unsaid(one, deep - 1)]


def does_nothing(step: object) -> bool:
    return is_function(step) and look(step, "func") is None


def parameters(step: object) -> list[str]:
    """Return the texts among the attributes of `step`, and in lists among them."""
    values = list(vars(step).values()) if hasattr(step, "__dict__") else []
    values += [one for value in values if isinstance(value, list | tuple) for one in value]
    return [value for value in values if isinstance(value, str)]


def is_scikit_learn(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == "sklearn"


def takes_numbers_only(estimator: object) -> bool:
    """Whether the code that reads X is scikit-learn's own, and says that it takes numbers alone.

    A subclass that overrides the method reads X itself.
    """
    read = next(
        (
            base
            for base in type(estimator).__mro__
            if {"transform", "predict", "kneighbors", "score_samples"} & set(vars(base))
        ),
        type(estimator),
    )
    return is_scikit_learn(read) and not _takes_more(estimator)


def _takes_more(estimator: object) -> bool:
    """Whether scikit-learn's tags allow more than numbers: strings, categories, objects."""
    if (tags := look(estimator, "__sklearn_tags__")) is not None:  # from 1.6 on
        found = _called(tags)
        takes = look(found, "input_tags")
        names = ("string", "categorical", "dict")
        return bool(look(found, "no_validation")) or any(look(takes, name) for name in names)
    found = _called(look(estimator, "_get_tags")) or {}
    kinds = {"string", "categorical", "dict", "1dlabels"}
    return bool(found.get("no_validation")) or bool(kinds & set(found.get("X_types", ())))


def _called(function: Any) -> Any:
    """Call a method of a loaded object; None where it fails, as an old pickle may."""
    try:
        return function()
    except Exception:
        return None


def members(estimator: object) -> list[Any]:
    """Return the fitted estimators that a search, an ensemble or another wrapper is made of."""
    names = ("best_estimator_", "estimator_", "regressor_", "classifier_")
    found = [one for name in names if (one := look(estimator, name)) is not None]
    fitted = look(estimator, "estimators_")
    if isinstance(fitted, list):
        found += fitted
    for one in look(estimator, "calibrated_classifiers_") or []:
        found.append(look(one, "estimator"))
    return found or [one for one in [look(estimator, "estimator")] if one is not None]


def union(estimator: object) -> list[Any]:
    """Return the parts of a FeatureUnion."""
    parts = look(estimator, "transformer_list")
    return [part for _, part in parts if not isinstance(part, str)] if parts else []

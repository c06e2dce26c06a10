"""Which models answer each row as if it were alone, so that requests may travel together."""

from __future__ import annotations

from skserve.inference.hooks import Hooks

# Methods whose answer may be as wide as a vocabulary, and sparse.
WIDE = {"transform"}


# Classes of scikit-learn in which one row's answer may depend on the rows beside it.
_DEPENDENT = {
    "BernoulliRBM",  # draws a random number for each row of score_samples
    "DummyClassifier",  # may draw its answers, row after row
    "FunctionTransformer",  # any function at all
    "NMF",  # iterates until the error over all rows is small
    "MiniBatchNMF",
    "IterativeImputer",  # may draw random numbers, row after row
}


def joinable(estimator: object, method: str | None, script: Hooks, mode: str) -> bool:
    """Whether requests to a model may travel together.

    Only where each row is answered as if it were alone. Of scikit-learn's own classes that is
    known; a script has to say so (`on`), and then only its predict_fn may be its own, without a
    context, because what surrounds it belongs to one request.
    """
    if method in WIDE or script.input_fn or script.output_fn:
        return False
    if script.transform_fn or (script.predict_fn and script.predict_fn.takes_context):
        return False
    return mode == "on" or (not script.predict_fn and independent(estimator))


def independent(estimator: object) -> bool:
    """Whether an estimator is made of scikit-learn's own classes alone, and of none in which rows
    meet; a function as a parameter, such as a metric, is the user's own.
    """
    try:
        parts = [estimator, *estimator.get_params(deep=True).values()]  # type: ignore[attr-defined]
    except Exception:  # no estimator, or an old pickle
        return False
    return all(_known(part) for part in parts)


def _known(part: object) -> bool:
    kind = type(part)
    if hasattr(part, "get_params") and not isinstance(part, type):
        return kind.__module__.startswith("sklearn.") and kind.__name__ not in _DEPENDENT
    return isinstance(part, type) or not callable(part)

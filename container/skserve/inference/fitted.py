"""Whether what a file holds is a fitted model that answers new rows; if not, why, and the way out.

A server of anything else would start, be called healthy, and refuse every request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from skserve.errors import StartError
from skserve.estimators.methods import fitted_steps, look

_LIBRARIES = ("sklearn", "lightgbm", "xgboost", "catboost")

_MOST = 10  # members of a container that are named

_SCRIPT = "or choose from it in a model_fn in code/inference.py"


def check_model(estimator: object, holder: str = "The model file holds") -> None:
    """Raise StartError for an object that is no model, or no single one.

    `holder` begins its sentence with where the object is from.
    """
    kind = type(estimator).__name__
    if isinstance(estimator, type):
        raise StartError(
            f"{holder} the class {estimator.__name__} itself; save a fitted object of "
            f"it: joblib.dump({estimator.__name__}(...).fit(X, y), ...)."
        )
    if isinstance(estimator, Mapping | list | tuple | set):
        raise StartError(
            f"{holder} a {kind}, not a model ({_members(estimator)}); save one fitted "
            f"model (a Pipeline joins several steps), {_SCRIPT}."
        )
    library = type(estimator).__module__.partition(".")[0]
    if library in ("builtins", "numpy", "pandas") or look(estimator, "tocsr"):
        raise StartError(f"{holder} data (a {kind}), not a fitted model; save what fit returned.")


def _members(container: Any) -> str:
    """Name the members of a container and what each of them is."""
    if not container:
        return "it is empty"
    named = container.items() if isinstance(container, Mapping) else enumerate(container)
    told = [f"{key!r:.40} is a {type(value).__name__}" for key, value in named]
    more = f" and {len(told) - _MOST} more" if len(told) > _MOST else ""
    return ", ".join(told[:_MOST]) + more


def _last_step(estimator: object) -> object:
    """Follow pipelines to the step that answers."""
    while steps := fitted_steps(estimator):
        estimator = steps[-1]
    return estimator


def check_new_rows(estimator: object) -> None:
    """Raise StartError for a model that has an answer only for the rows it was fitted on."""
    last = _last_step(estimator)
    if type(last).__name__ == "LocalOutlierFactor" and look(last, "novelty") is False:
        raise StartError(
            "LocalOutlierFactor with novelty=False answers only for the rows it was fitted on; "
            "fit it with novelty=True."
        )
    if type(last).__name__ == "Booster" and type(last).__module__.startswith("xgboost."):
        raise StartError(
            "XGBoost's Booster answers a DMatrix, not rows; save the XGBClassifier or XGBRegressor "
            "around it, or make the DMatrix in a predict_fn in code/inference.py."
        )
    if look(last, "refit") is False and look(last, "best_estimator_") is None:
        raise StartError(
            f"This {type(last).__name__} was made with refit=False, so it kept no fitted model; "
            "make it with refit=True, or save the model that you fit with its best_params_."
        )


def no_method(estimator: object) -> StartError:
    """Return the error for a model without any method that can answer."""
    kind = type(_last_step(estimator)).__name__
    if callable(look(estimator, "fit_predict")):
        return StartError(
            f"{kind} labels only the rows it was fitted on and has no predict for new ones; save a "
            "model that has, such as KMeans, or a classifier fitted on its labels."
        )
    return StartError(
        f"{kind} has no method that can answer requests, such as predict; save a fitted model, "
        f"{_SCRIPT}."
    )


def check_fitted(estimator: object, ask: Callable[[Any], Any], example: Any) -> None:
    """Raise StartError where the model itself says that it was never fitted.

    `ask` is the method that is going to answer, and `example` an X for it. It is called only where
    no attribute shows a fit: a model without state is complete without one. A class of the user's
    own is not asked, because what it does when it is asked is not known.
    """
    if type(_last_step(estimator)).__module__.partition(".")[0] not in _LIBRARIES:
        return
    if callable(is_fitted := look(_last_step(estimator), "is_fitted")) and not is_fitted():
        raise _unfitted(estimator)  # CatBoost's own error is another one
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(estimator)
    except NotFittedError:
        pass
    except Exception:  # not one of scikit-learn's own kind, or too old a pickle to be asked
        return
    else:
        return
    try:
        ask(example)
    except NotFittedError:
        raise _unfitted(estimator) from None
    except AttributeError as error:  # of one that lacks what a fit sets, such as X_min_
        if error.obj is _last_step(estimator) and str(error.name).endswith("_"):
            raise _unfitted(estimator) from None
    except Exception:  # its own affair: the example is made up
        return


def _unfitted(estimator: object) -> StartError:
    return StartError(
        f"The {type(estimator).__name__} in the model file was saved before it was fitted; "
        "call fit, then save it again."
    )

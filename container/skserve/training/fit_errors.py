"""Why a fit failed: scikit-learn's own sentence, and the way out of the commonest ones."""

from __future__ import annotations

from typing import Any

from skserve.training.dataset import Dataset


def explained(estimator: Any, train: Dataset, error: Exception) -> str:
    """Say why a fit failed: scikit-learn's own sentence, and the way out of the commonest ones."""
    name = type(estimator).__name__
    said = " ".join(str(error).split())[:500].rstrip(".")
    kinds = train.X.dtypes.items() if hasattr(train.X, "dtypes") else ()
    texts = [name for name, kind in kinds if kind.kind not in "fiub"]
    if "could not convert string" in said and texts:
        hint = (
            f"Column {texts[0]} holds text: encode it in a Pipeline, for example with "
            "sklearn.preprocessing.OrdinalEncoder, or set header= if the first line was misread."
        )
    elif "contains NaN" in said:
        hint = (
            "Cells are missing: put sklearn.impute.SimpleImputer in front, in a Pipeline, or take "
            "an estimator that allows it, such as "
            "sklearn.ensemble.HistGradientBoostingClassifier."
        )
    elif "Unknown label type" in said:
        hint = "The target is a quantity: choose a regressor, or another target."
    else:
        hint = "Change the hyperparameter or the data that it names."
    return f"{name} could not be fitted: {said}. {hint}"

"""What the zygote has in memory before it forks a first model, to be shared by all of them."""

from __future__ import annotations

import gc
import importlib
import logging
import tempfile
from pathlib import Path

from skserve.config import Config
from skserve.inference.calls import Call
from skserve.inference.model import Model

# What most models are made of: imported once, here, and shared by all of them.
WARM = (
    "pandas",
    "sklearn.compose",
    "sklearn.ensemble",
    "sklearn.feature_extraction.text",
    "sklearn.impute",
    "sklearn.linear_model",
    "sklearn.neighbors",
    "sklearn.pipeline",
    "sklearn.preprocessing",
    "sklearn.svm",
    "sklearn.tree",
)


def warm() -> None:
    """Import what models need, and take a first small model through its life.

    What scikit-learn makes at its first use is then made once, and its pages are shared.
    """
    logging.disable(logging.INFO)  # no caller asked for this model
    gc.disable()  # a collection would leave holes, which each model would fill in a copy
    for name in WARM:
        importlib.import_module(name)
    import joblib
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    sample = make_pipeline(StandardScaler(), LogisticRegression()).fit([[0, 0], [1, 1]], [0, 1])
    with tempfile.TemporaryDirectory(prefix="skserve-") as folder:
        joblib.dump(sample, Path(folder) / "sample.joblib")
        Model.load(Path(folder), Config()).invoke(Call(b"[[1, 2]]"))
    gc.freeze()  # nothing of this is looked at again, and so copied, by a collection in a model
    gc.enable()
    logging.disable(logging.NOTSET)

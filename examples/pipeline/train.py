"""Fit a Pipeline, and save it twice: its two steps for two containers, and the whole for one.

usage: train.py FOLDER     makes FOLDER/scaler, FOLDER/classifier and FOLDER/whole
"""

from __future__ import annotations

import sys
from pathlib import Path

import joblib
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

whole = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
whole.fit(*load_iris(return_X_y=True))
scaler, classifier = (step for _, step in whole.steps)
for name, model in (("scaler", scaler), ("classifier", classifier), ("whole", whole)):
    folder = Path(sys.argv[1]) / name
    folder.mkdir(parents=True, exist_ok=True)
    joblib.dump(model, folder / "model.joblib")

"""Fit a classifier of iris flowers on a table whose columns have names.

usage: train.py MODEL_FOLDER [TABLE]     TABLE is a CSV file to write the flowers to
"""

import sys
from pathlib import Path

import joblib
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression


def main(model_dir: Path, *tables: Path) -> None:
    X, y = load_iris(return_X_y=True, as_frame=True)
    X.columns = ["sl", "sw", "pl", "pw"]
    model_dir.mkdir(parents=True, exist_ok=True)
    joblib.dump(LogisticRegression(max_iter=500).fit(X, y), model_dir / "model.joblib")
    for table in tables:
        X.to_csv(table, index=False)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

"""Fit a LinearRegression on scikit-learn's diabetes data; put it and its script into one folder."""

import shutil
import sys
from pathlib import Path

import joblib
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression


def main(model_dir: Path) -> None:
    X, y = load_diabetes(return_X_y=True)
    model_dir.mkdir(parents=True, exist_ok=True)
    joblib.dump(LinearRegression().fit(X, y), model_dir / "model.joblib")
    script = Path(__file__).parent / "code" / "inference.py"
    (model_dir / "code").mkdir(exist_ok=True)
    shutil.copy(script, model_dir / "code")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

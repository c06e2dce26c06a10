"""Fit the wine recommender: scaled measurements, and the nearest wines by cosine distance."""

import sys
from pathlib import Path

import joblib
from sklearn.datasets import load_wine
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def main(model_dir: Path) -> None:
    X, _ = load_wine(return_X_y=True)
    model = make_pipeline(StandardScaler(), NearestNeighbors(n_neighbors=10, metric="cosine"))
    model_dir.mkdir(parents=True, exist_ok=True)
    joblib.dump(model.fit(X), model_dir / "model.joblib")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

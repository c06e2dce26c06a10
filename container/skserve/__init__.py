"""Serve a fitted scikit-learn estimator the way Amazon SageMaker asks for it."""

__version__ = "0.1.0"

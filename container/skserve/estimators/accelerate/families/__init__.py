"""The families of estimators that have kernels, a module each; see `kernel.py`."""

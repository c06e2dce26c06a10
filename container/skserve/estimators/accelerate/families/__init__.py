"""The families of estimators that have kernels, a module each.

`registry.builders` finds every module here, and takes the table `KERNELS` of each.
"""

"""`decode(body, content_type)`, without the original's CSV, which was numpy's genfromtxt.

That one gave a structured array, which no estimator takes, when one column held integers and
another floats, and read a missing integer as -1. Here numbers are always float64. As in AWS's
scikit-learn image, npz is not read.
"""

from sagemaker_containers.beta.framework.encoders import decode

__all__ = ["decode"]

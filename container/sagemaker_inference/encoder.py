"""`encode(array_like, content_type)`. CSV cells that hold a comma or a quote come out quoted."""

from sagemaker_containers.beta.framework.encoders import ENCODERS, encode

__all__ = ["SUPPORTED_CONTENT_TYPES", "encode"]

SUPPORTED_CONTENT_TYPES = set(ENCODERS)

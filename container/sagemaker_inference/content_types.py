"""Media types by their short names. UTF8_TYPES reach a hook as str, all others as bytes."""

from sagemaker_containers.beta.framework.content_types import (
    ANY,
    CSV,
    JSON,
    NPY,
    OCTET_STREAM,
    UTF8_TYPES,
)

__all__ = ["ANY", "CSV", "JSON", "NPY", "NPZ", "OCTET_STREAM", "UTF8_TYPES"]

NPZ = "application/x-npz"

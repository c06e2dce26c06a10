"""The toolkit's logger, under the name that scripts and log filters know."""

import logging


def get_logger() -> logging.Logger:
    """Return the logger "sagemaker-inference"."""
    return logging.getLogger("sagemaker-inference")


def configure_logger() -> None:
    """Do nothing: skserve has set up where log lines go, and a second handler doubles them."""

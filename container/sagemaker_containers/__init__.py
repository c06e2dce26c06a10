"""Stand-in for AWS's sagemaker-containers 2.8, so that scripts importing it run unchanged.

It holds what published `inference.py` and training scripts really use: the encoders, `Response`,
and `training_env()`. What the original does besides (nginx, pip, downloads, writing the
environment) is skserve's own work and is not repeated here.
"""

import json
import os
from types import SimpleNamespace


def training_env() -> SimpleNamespace:
    """Return the training job's settings as attributes, such as `.model_dir` or `.hosts`.

    `.channel_input_dirs["train"]` and `.hyperparameters` are dictionaries. It is read from
    SM_TRAINING_ENV, which exists only inside a training job: elsewhere this is a KeyError.
    """
    return SimpleNamespace(**json.loads(os.environ["SM_TRAINING_ENV"]))

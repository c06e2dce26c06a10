"""BentoML: one service, two workers, numpy in and out."""

import bentoml
import numpy as np
from predictor import Predictor


@bentoml.service(workers=2, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Service:
    def __init__(self) -> None:
        self._predict = Predictor()

    @bentoml.api
    def predict(self, rows: np.ndarray) -> np.ndarray:
        return self._predict(rows)

"""MLServer's V2 protocol with a runtime that also answers `kneighbors`."""

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from predictor import Predictor


class Runtime(MLModel):
    async def load(self) -> bool:
        self._predict = Predictor()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        X = self.decode(payload.inputs[0], default_codec=NumpyCodec)
        output = NumpyCodec.encode_output("predict", self._predict(X))
        return InferenceResponse(model_name=self.name, outputs=[output])

"""FastAPI and orjson as one writes it by hand: the model in the event loop, bytes in and out."""

import numpy as np
import orjson
from fastapi import FastAPI, Request, Response
from predictor import Predictor

app = FastAPI()
predict = Predictor()


@app.post("/invocations")
async def invocations(request: Request) -> Response:
    X = np.asarray(orjson.loads(await request.body()))
    body = orjson.dumps(predict(X), option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, media_type="application/json")

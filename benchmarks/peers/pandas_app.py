"""FastAPI and orjson by hand for named columns: a DataFrame of the records, and the model."""

import orjson
import pandas as pd
from fastapi import FastAPI, Request, Response
from predictor import Predictor

app = FastAPI()
predict = Predictor()


@app.post("/invocations")
async def invocations(request: Request) -> Response:
    X = pd.DataFrame(orjson.loads(await request.body()))
    body = orjson.dumps(predict(X), option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, media_type="application/json")

"""The second founding story in the image: train with s3fs in requirements.txt, then serve npy."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import boto3
import numpy as np
import pytest
from moto.server import ThreadedMotoServer
from sklearn.neighbors import NearestNeighbors

from tests.conftest import ROOT
from tests.test_image import container, docker, pytestmark, readable  # noqa: F401 - ours too

WINES = np.random.default_rng(0).normal(size=(500, 8))
KEYS = {"aws_access_key_id": "x", "aws_secret_access_key": "y", "region_name": "eu-west-1"}


@pytest.fixture
def s3() -> Iterator[str]:
    """Serve the wines as an object of S3; return the address of the endpoint."""
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    body = io.BytesIO()
    np.save(body, WINES)
    client = boto3.client("s3", endpoint_url=url, **KEYS)
    client.create_bucket(
        Bucket="research", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    client.put_object(Bucket="research", Key="wines.npy", Body=body.getvalue())
    yield url
    server.stop()


@pytest.mark.soak
def test_a_model_trained_on_data_that_s3fs_reads_is_served(image: str, s3: str, tmp_path: Path):
    base, code, config = tmp_path / "ml", tmp_path / "ml" / "code", tmp_path / "ml/input/config"
    for folder in (code / "wheels", config, base / "model", base / "output"):
        folder.mkdir(parents=True)
    shutil.copy(ROOT / "examples" / "wine_at_scale" / "code" / "train.py", code)
    (code / "requirements.txt").write_text("s3fs\n")
    asked = {"sagemaker_program": "train.py", "data": "s3://research/wines.npy"}
    (config / "hyperparameters.json").write_text(json.dumps(asked))
    wheels = ("--rm", "--user", "0", "-v", f"{code / 'wheels'}:/wheels", "--entrypoint", "python")
    docker("run", *wheels, image, "-m", "pip", "download", "--quiet", "-d", "/wheels", "s3fs")

    keys = ("AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=y", "AWS_DEFAULT_REGION=eu-west-1")
    settings = [word for key in (f"AWS_ENDPOINT_URL_S3={s3}", *keys) for word in ("-e", key)]
    docker("run", "--rm", "--network", "host", *settings, "-v", f"{base}:/opt/ml", image, "train")

    ask = (
        "import numpy, io, sys, urllib.request as u; b = io.BytesIO(); "
        f"numpy.save(b, numpy.array({WINES[:3].tolist()})); "
        "a = u.urlopen(u.Request('http://127.0.0.1:8080/invocations', b.getvalue(), "
        "{'Content-Type': 'application/x-npy', 'Accept': 'application/x-npy'})).read(); "
        "print(numpy.load(io.BytesIO(a)).tolist())"
    )
    with container(image, readable(base / "model"), "--network", "none") as running:
        found = np.array(json.loads(running.python(ask)))
    expected = NearestNeighbors(n_neighbors=10).fit(WINES).kneighbors(WINES[:3])
    assert found == pytest.approx(np.stack(expected, axis=1))

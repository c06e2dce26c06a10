"""One cloud: its parts put together, started, taken up again and ended."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from moto.core.responses import ActionResult
from moto.ecr.responses import ECRResponse
from werkzeug.serving import BaseWSGIServer, make_server

from .artifacts import Artifacts
from .asynchronous import Queues
from .capture import capture
from .catalogue import Catalogue
from .docker_front import DockerFront
from .endpoint_calls import Endpoints
from .engine import Engine
from .errors import ApiError
from .faults import Faults
from .fleet import Variant
from .images import Images, real_digests
from .instance import Instance
from .jobs import Jobs
from .launcher import Launcher
from .listings import LISTINGS
from .metrics import Metrics, exact_dimensions
from .multi_model import Models
from .rollout import Deployer
from .runtime import Runtime
from .scaling import Scaler
from .server import Front, Handler, Operation
from .services import Services
from .speed import Speed
from .store import Store
from .training import TrainingJobs
from .transform_jobs import TransformJobs
from .web import Answer, Web

_LOOK = 0.2  # seconds between two looks for containers that have ended
_PING_EVERY = 25  # looks
_MISSED = 3  # pings in a row without a 200, after which an instance is replaced


class Cloud:
    """Everything that one process serves."""

    job_kinds: tuple[type[Jobs], ...] = (TransformJobs, TrainingJobs)

    def __init__(self, folder: Path, region: str, speed: Speed, engine: Engine | None) -> None:
        self.engine, self._speed = engine, speed
        self.store = Store(folder)
        self.services = Services(region)
        self.services.changed = self.store.changed
        self.faults = Faults()
        self.metrics = Metrics(self.services, speed)
        self.images = Images(engine, self.services, self.store)
        artifacts = Artifacts(folder / "artifacts", self.services)
        self.launcher = Launcher(
            engine, self.services, artifacts, self.images, self.faults, speed, folder, self._inside
        )
        self.deployer = Deployer(self.launch, self.services, speed)
        self.catalogue = Catalogue(self.store, self.services, self.images)
        self.endpoints = Endpoints(
            self.store, self.catalogue, self.images, self.services, self.deployer
        )
        shared = (self.store, self.services, self.catalogue, self.images, artifacts, self.launcher,
                  engine, folder)  # fmt: skip
        self.jobs = tuple(kind(*shared) for kind in self.job_kinds)
        models = Models(artifacts, self.launcher)
        self.runtime = Runtime(
            self.endpoints.find, self.metrics, models, self.services, self._capture
        )
        self.queues = Queues(
            self.runtime,
            self.services,
            lambda one: self.endpoints.config(one).get("AsyncInferenceConfig", {}),
        )
        self.endpoints.gone = self.queues.forget
        self.faults.kill = self.endpoints.kill
        web = Web(self.runtime, self.queues, self.endpoints.config)
        own = {"/_cloud/faults": self._faults, "/_cloud/blob/": self._blob}
        self.front = Front(region, self._operations(), web, self.faults, self.store, own)
        self._ended = threading.Event()
        self._servers: list[BaseWSGIServer] = []
        self._docker: DockerFront | None = None
        self._inside_lock = threading.Lock()
        self._inside_url = ""
        real_digests()
        exact_dimensions()
        ECRResponse.get_download_url_for_layer = _download_url  # type: ignore[method-assign,assignment]

    def launch(self, variant: Variant) -> Instance:
        """Start an instance of a variant. Raises `StartError`."""
        return self.launcher.launch(variant)

    def _operations(self) -> dict[str, Operation]:
        lists: dict[str, Operation] = {
            name: self._lister(*listing) for name, listing in LISTINGS.items()
        }
        known = [self.catalogue.operations(), self.endpoints.operations()]
        known += [jobs.operations() for jobs in self.jobs]
        return lists | {name: made for part in known for name, made in part.items()}

    def _lister(self, key: str, listing: Any) -> Operation:
        def page(given: Mapping[str, Any]) -> dict[str, Any]:
            found = listing.page(self.store, given)
            return {key: found.pop("page"), **found}

        return page

    def _capture(self, endpoint: Any, variant: Variant, call: Any, reply: Any) -> None:
        config = self.endpoints.config(endpoint)
        with suppress(LookupError):  # the bucket is gone: the call is answered all the same
            capture(self.services, config, variant, call, reply)

    # ---- this cloud's own paths

    def _faults(self, environ: Mapping[str, Any], body: bytes) -> Answer:
        method = environ["REQUEST_METHOD"]
        if method == "POST":
            try:
                self.faults.add(json.loads(body))
            except ValueError as error:
                raise ApiError(
                    "ValidationException", f"a fault is a JSON object: {error}"
                ) from error
        elif method == "DELETE":
            self.faults.clear()
        return _json(self.faults.list())

    def _blob(self, environ: Mapping[str, Any], body: bytes) -> Answer:
        content = self.images.blob(environ["PATH_INFO"].removeprefix("/_cloud/blob/"))
        if content is None:
            raise ApiError("LayersNotFoundException", "there is no such layer", 404)
        return "200 OK", [("Content-Length", str(len(content)))], [content]

    # ---- the life of the process

    def start(self, port: int, docker_port: int) -> bool:
        """Listen, and take up what an earlier process left; say whether there was anything."""
        server = make_server("127.0.0.1", port, self.front, threaded=True, request_handler=Handler)
        self._serve(server)
        found = self.store.load()
        if self.engine is not None:
            self._docker = DockerFront(docker_port, self.engine, self.images)
            self._thread(self._docker.serve_forever, "docker")
        if found:
            self.images.restore()
        else:
            self.services.set_up()
        self._resume()
        self.store.start()
        self.launcher.ended = self._look
        scaler = Scaler(self.services, self.metrics, self.queues, self.deployer, self._speed)
        for work in (
            lambda: self.metrics.run(self._ended),
            lambda: self.queues.run(self._ended, self.endpoints.all),
            lambda: scaler.run(self._ended, self.endpoints.find, self.endpoints.all),
            self._watch,
        ):
            self._thread(work, "cloud")
        return found

    def _resume(self) -> None:
        """Give running containers back to their endpoints, and remove all others."""
        left = list(self.engine.containers()) if self.engine else []
        taken: set[str] = set()

        def adopt(variant: Variant) -> list[Instance]:
            named = (variant.endpoint, variant.config, variant.name)
            found = []
            for container in left:
                labels = container.labels
                if named != tuple(
                    labels.get(f"skserve.cloud.{key}") for key in ("endpoint", "config", "variant")
                ):
                    continue
                instance = self.launcher.adopt(variant, container)
                if instance is not None:
                    taken.add(container.id)
                    found.append(instance)
            return found

        self.endpoints.resume(adopt)
        for jobs in self.jobs:
            jobs.resume()
        for container in left:
            if container.id not in taken:
                container.remove()

    @property
    def port(self) -> int:
        return int(self._servers[0].server_port)

    @property
    def docker_port(self) -> int:
        return int(self._docker.server_address[1]) if self._docker else 0

    def _serve(self, server: BaseWSGIServer) -> None:
        server.daemon_threads = True  # type: ignore[attr-defined]
        self._servers.append(server)
        self._thread(server.serve_forever, "http")

    def _inside(self) -> str:
        """Return this cloud's URL for containers, and listen there."""
        assert self.engine is not None
        with self._inside_lock:
            if not self._inside_url:
                host = self.engine.gateway()
                try:
                    self._serve(make_server(host, self.port, self.front, threaded=True,
                                            request_handler=Handler))  # fmt: skip
                except (OSError, SystemExit):  # the engine is in a machine of its own
                    host = "host.docker.internal"
                self._inside_url = f"http://{host}:{self.port}"
        return self._inside_url

    def _thread(self, work: Any, name: str) -> None:
        threading.Thread(target=work, name=name, daemon=True).start()

    def _look(self) -> None:
        for endpoint in self.endpoints.all():
            self.deployer.replace_missing(endpoint)

    def _watch(self) -> None:
        """Replace what has ended or does not answer /ping."""
        looks = 0
        with ThreadPoolExecutor(16, "ping") as pool:
            while not self._ended.wait(_LOOK):
                self._look()
                looks += 1
                if looks % _PING_EVERY == 0:
                    for service in ("logs", "cloudwatch"):  # written to all the time
                        self.store.changed(service)
                    for endpoint in self.endpoints.all():
                        for variant in endpoint.variants:
                            list(pool.map(_pinged, variant.serving))

    def close(self) -> None:
        """Stop and remove all containers, and forget everything."""
        self._ended.set()
        for endpoint in self.endpoints.all():
            endpoint.ended = True
        if self.engine is not None:
            with ThreadPoolExecutor(8) as removers:
                list(removers.map(lambda one: one.remove(), list(self.engine.containers())))
            # One that was being started meanwhile.
            for container in self.engine.containers():
                container.remove()
            self.engine.remove_networks()
        if self._docker:
            self._docker.shutdown()
        for server in self._servers:
            server.shutdown()
        self.store.forget()


def _pinged(instance: Instance) -> None:
    instance.missed = 0 if instance.ping() else instance.missed + 1
    if instance.missed >= _MISSED:
        instance.alive = False


def _json(value: Any) -> Answer:
    content = json.dumps(value).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(content)))]
    return "200 OK", headers, [content]


def _download_url(self: Any) -> ActionResult:
    """Answer ECR's GetDownloadUrlForLayer, which moto has not."""
    digest, host = json.loads(self.body)["layerDigest"], self.headers.get("Host")
    url = f"http://{host}/_cloud/blob/{digest}"
    return ActionResult({"downloadUrl": url, "layerDigest": digest})

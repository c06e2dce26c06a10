"""Many models behind one endpoint: loaded at their first call, unloaded where memory is short."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from pathlib import Path

from .artifacts import Artifacts
from .errors import ApiError, StartError
from .fleet import Variant
from .instance import Instance
from .launcher import Launcher

_LOAD_SECONDS = 360.0
_LOADED, _EXISTS, _NO_MEMORY = 200, 409, 507


class Models:
    """Loads and unloads the models of instances."""

    def __init__(self, artifacts: Artifacts, launcher: Launcher) -> None:
        self._artifacts, self._launcher = artifacts, launcher

    def path(self, variant: Variant, instance: Instance, target: str) -> str:
        """Return where the instance answers for the model, which is loaded then."""
        name = hashlib.sha256(target.encode()).hexdigest()[:32]
        with instance.lock:
            if name not in instance.loaded:
                self._load(variant, instance, target, name)
            instance.loaded[name] = time.monotonic()
        return f"/models/{name}/invoke"

    def called(self, variant: Variant, instance: Instance, target: str) -> None:
        """Unload after the call where the model's cache is disabled."""
        setting = variant.container.get("MultiModelConfig", {}).get("ModelCacheSetting")
        if setting == "Disabled":
            with instance.lock:
                name = hashlib.sha256(target.encode()).hexdigest()[:32]
                self._unload(instance, name)
                shutil.rmtree(self._folder(instance) / name, ignore_errors=True)

    def _folder(self, instance: Instance) -> Path:
        return self._launcher.models_folder(instance.name)

    def _load(self, variant: Variant, instance: Instance, target: str, name: str) -> None:
        """Fetch and load a model, unloading those called longest ago while memory is short."""
        self._fetch(variant, instance, target, name)
        body = json.dumps({"model_name": name, "url": f"/opt/ml/models/{name}/model"})
        headers = {"Content-Type": "application/json"}
        while True:
            answer = instance.call("POST", "/models", body, headers, _LOAD_SECONDS)
            if answer.status in (_LOADED, _EXISTS):
                return
            oldest = min(instance.loaded, key=lambda one: instance.loaded[one], default=None)
            if answer.status != _NO_MEMORY or oldest is None:
                raise ModelAnsweredError(answer.status, answer.data)
            self._unload(instance, oldest)

    def _unload(self, instance: Instance, name: str) -> None:
        instance.call("DELETE", f"/models/{name}", timeout=_LOAD_SECONDS)
        instance.loaded.pop(name, None)

    def _fetch(self, variant: Variant, instance: Instance, target: str, name: str) -> None:
        uri = f"{variant.container['ModelDataUrl']}{target}"
        there = self._folder(instance) / name / "model"
        if there.exists():
            return
        try:
            unpacked = self._artifacts.archive(uri)
        except StartError as error:
            raise ApiError("ValidationError", str(error).replace(" for container", "")) from error
        shutil.copytree(unpacked, there)
        there.parent.chmod(0o755)


class ModelAnsweredError(Exception):
    """The container did not load a model; its status and body are the caller's answer."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status)
        self.status, self.body = status, body

"""The request's context, as the functions of a script see it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Context:
    """What a function that asks for it may know of the request and say of the answer.

    The names are those of Multi Model Server's context; `index` is always 0, one request a call.
    """

    model_dir: str
    headers: dict[str, str] = field(default_factory=dict)
    status: int | None = None
    media_type: str | None = None
    reply_headers: dict[str, str] = field(default_factory=dict)

    @property
    def manifest(self) -> dict[str, Any]:
        return {}

    @property
    def system_properties(self) -> dict[str, Any]:
        return {"model_dir": self.model_dir, "gpu_id": None, "batch_size": 1}

    def get_request_header(self, index: int, key: str) -> str | None:
        wanted = key.lower()
        return next((text for name, text in self.headers.items() if name.lower() == wanted), None)

    def get_all_request_header(self, index: int) -> dict[str, str]:
        return self.headers

    def set_response_content_type(self, index: int, value: str) -> None:
        self.media_type = value

    def get_response_content_type(self, index: int) -> str | None:
        return self.media_type

    def set_response_status(self, code: int = 200, phrase: str = "", index: int = 0) -> None:
        self.status = code

    def set_response_header(self, index: int, key: str, value: str) -> None:
        self.reply_headers[key] = value

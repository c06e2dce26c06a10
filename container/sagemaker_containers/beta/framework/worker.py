"""`worker.Response`, what AWS's inference pipeline examples return from `output_fn`."""

from collections.abc import Iterable, Mapping

import flask

from sagemaker_containers.beta.framework import content_types


class Response(flask.Response):
    """A Flask response that is JSON unless `mimetype` says otherwise.

    `accept` is ignored, as the original does: older scripts pass it second, before `mimetype`.
    """

    default_mimetype = content_types.JSON

    def __init__(
        self,
        response: Iterable[str] | Iterable[bytes] | str | bytes | None = None,
        accept: str | None = None,
        status: int | str = 200,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        mimetype: str | None = None,
        direct_passthrough: bool = False,
    ) -> None:
        super().__init__(response, status, headers, mimetype, None, direct_passthrough)

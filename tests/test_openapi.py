"""GET /openapi.json: it describes every route, and requests and answers are as it says."""

from __future__ import annotations

import json
import re
from urllib.parse import quote

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import one_of
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from skserve.config import Config
from skserve.inference.model import Model
from skserve.scheduling.bodies import Bodies
from skserve.scheduling.local_model import LocalModel
from skserve.scheduling.slots import Slots
from skserve.serving import multi_model_api, openapi
from skserve.serving.routes import create_app
from tests import page_models
from tests.conftest import ROOT, serving

ROUTES = (ROOT / "docs" / "27-page.md").read_text()

SIX = ["iris", "mixed", "text", "wine", "scaled", "script"]
AS_DESCRIBED = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def apps(tmp_path_factory):
    """Return the application over the model of that name, made once."""
    root, made = tmp_path_factory.mktemp("openapi"), {}

    def app(name: str):
        if name not in made:
            model = Model.load(page_models.make(name, root), Config())
            registry = LocalModel(Slots(1, 1000, timeout=10), model)
            made[name] = create_app(registry, Config(), Bodies(64 << 20))
        return made[name]

    return app


def document(app) -> dict:
    return app.test_client().get("/openapi.json").json


def hold(operation, mode: GenerationMode, examples: int) -> set[int]:
    """Send requests that fit an operation, or do not; return the statuses of the answers.

    Among those that fit are the examples of the description: numbers that were drawn may all be too
    large for a model.
    """
    seen = set()
    drawn = operation.as_strategy(generation_mode=mode)
    if mode is GenerationMode.POSITIVE:
        drawn = one_of(*operation.get_strategies_from_examples(), drawn)

    @given(case=drawn)
    @settings(
        max_examples=examples,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    def check(case) -> None:
        response = case.call()
        seen.add(response.status_code)
        case.validate_response(response, checks=AS_DESCRIBED)

    check()
    return seen


def operations(schema) -> list:
    return [found.ok() for found in schema.get_all_operations()]


# ------------------------------------------------------------------------ requests and answers


@pytest.mark.parametrize("name", SIX)
def test_no_request_is_a_5xx_and_every_answer_is_as_described(apps, name):
    schema = schemathesis.openapi.from_wsgi("/openapi.json", apps(name))
    for operation in operations(schema):
        called = operation.label == "POST /invocations"
        seen = hold(operation, GenerationMode.POSITIVE, 15 if called else 2)
        if called:
            # What a script takes is not described: hardly anything of it is by chance.
            assert 200 in seen or name == "script"
            if name != "script":
                assert 400 in hold(operation, GenerationMode.NEGATIVE, 15)


@pytest.mark.soak
@pytest.mark.parametrize("name", SIX)
def test_a_real_server_answers_as_described(tmp_path, name):
    folder = page_models.make(name, tmp_path)
    with serving(folder, tmp_path / "log") as server:
        schema = schemathesis.openapi.from_url(server.url + "/openapi.json")
        for operation in operations(schema):
            hold(operation, GenerationMode.POSITIVE, 300)
            if operation.label == "POST /invocations" and name != "script":
                hold(operation, GenerationMode.NEGATIVE, 300)


@pytest.mark.soak
def test_a_real_server_of_many_models_answers_as_described(tmp_path):
    folder = page_models.make("mixed", tmp_path)
    environ = {"SAGEMAKER_MULTI_MODEL": "true", "SKSERVE_MODEL_ROOT": str(tmp_path)}
    with serving(folder, tmp_path / "log", **environ) as server:
        body = {"model_name": "a", "url": str(folder)}
        requests.post(server.url + "/models", json=body, timeout=60)
        for path in ("/models/a/openapi.json", "/openapi.json"):
            schema = schemathesis.openapi.from_url(server.url + path)
            schema.config.update(base_url=server.url)
            for operation in operations(schema):
                hold(operation, GenerationMode.POSITIVE, 100)


@pytest.mark.parametrize("name", SIX)
def test_the_example_of_the_body_is_answered(apps, name):
    described = document(apps(name))["components"]["schemas"].get("Body")
    if described is None:
        assert name == "script"
        return
    answer = apps(name).test_client().post("/invocations", json=described["examples"][0])

    assert answer.status_code == 200


# -------------------------------------------------------------------------------- what it says


class Nothing:
    """Stands for the models of a server of many, none of which is loaded."""

    def ready(self) -> bool:
        return True


def routes(app) -> set[tuple[str, str]]:
    """Return each path and method, but for the HEAD that goes with every GET."""
    return {
        (str(rule).replace("<segment>", "{name}").replace("<name>", "{name}"), method.lower())
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD"}
    }


@pytest.mark.parametrize("kind", ["one model", "many models"])
@pytest.mark.parametrize("page", [True, False])
def test_every_route_is_described_and_nothing_else(apps, tmp_path, kind, page):
    config = Config(page=page)
    if kind == "one model":
        model = Model.load(page_models.make("iris", tmp_path), config)
        registry = LocalModel(Slots(1, 1, timeout=1), model)
        app = create_app(registry, config, Bodies(1 << 20))
    else:
        app = multi_model_api.create_app(Nothing(), config, Bodies(1 << 20))

    said = document(app)
    described = {
        (path, method)
        for path, item in said["paths"].items()
        for method in item
        if method not in ("parameters", "head")
    }

    assert described == routes(app)
    assert ("/page/{name}" in said["paths"]) == page


def test_columns_stand_with_their_names_types_and_known_values(apps):
    schemas = document(apps("mixed"))["components"]["schemas"]

    island, tagged, mass = schemas["Row"]["prefixItems"]
    assert (island["title"], tagged["title"], mass["title"]) == ("island", "tagged", "mass")
    assert island["anyOf"] == [{"enum": ["007", "Biscoe", "Dream"]}, {"type": ["string", "null"]}]
    assert tagged["examples"] == [False, True]
    assert mass["type"] == ["number", "null"]
    assert mass["examples"] == [2850.0, 5140.0]  # no minimum: beyond it is answered too
    assert "minimum" not in mass
    assert list(schemas["Record"]["properties"]) == ["island", "tagged", "mass"]
    answer = schemas["Answer"]["anyOf"][0]["items"]["anyOf"]
    assert answer[0]["enum"] == ["small", "tall", "wide"]


@pytest.mark.parametrize("name", ["hostile", "wide", "many"])
def test_names_and_values_of_any_kind_are_described(apps, name):
    said = document(apps(name))

    row = said["components"]["schemas"]["Row"]["prefixItems"]
    names = {"hostile": page_models.HOSTILE, "wide": page_models.many_names(), "many": ["word"]}
    assert [one["title"] for one in row] == names[name]


def test_one_of_many_models_is_described_under_its_own_path():
    model = {"model": "X", "method": "predict", "script": [], "input": "table", "columns": []}
    model |= {"classes": None, "methods": ["predict"], "example": {"body": [[]]}}
    model |= {"content_types": ["application/json"], "accept": ["application/json"]}
    for name in ("a", *page_models.HOSTILE, "a/b", "\udcff"):
        said = openapi.of_named_model(name, model)

        path = quote(name.encode(errors="surrogateescape"), safe="")
        assert list(said["paths"]) == [f"/models/{path}/invoke"]
        assert "Body" in json.dumps(said["paths"])


def test_the_document_is_openapi_3_1(apps):
    for name in SIX:
        schema = schemathesis.openapi.from_dict(document(apps(name)))
        schema.validate()
        assert schema.raw_schema["openapi"] == "3.1.0"


def test_the_table_of_routes_in_the_docs_is_the_codes(apps):
    table = re.findall(r"^\| `(\w+) (/\S*)` \| (yes|no) \| (yes|no) ", ROUTES, re.MULTILINE)
    single, many = apps("iris"), multi_model_api.create_app(Nothing(), Config(), Bodies(1 << 20))

    for place, app in ((2, single), (3, many)):
        listed = {(row[1], row[0].lower()) for row in table if row[place] == "yes"}
        assert listed | {("/ping", "post")} == routes(app)

"""endpoint.toml: a fault names the line, the key and the allowed values; nothing is called."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import deploy
from deployment import combinations
from deployment.errors import Refused, Usage
from deployment.settings import Settings, line_of, load
from deployment.tables import Table
from tests.deployment.conftest import ROOT

LEAST = 'name = "wine"\n'


def loaded(text: str, **overrides: Any) -> Settings:
    path = Path("endpoint.toml")
    path.write_text(LEAST + text)
    return load(path, overrides)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[instance]\ntpye = 1", "endpoint.toml:3: instance.tpye: unknown key; did you mean type?"),
        ("[serverless]\nmemory_mb = 1000", "endpoint.toml:3: serverless.memory_mb: should be 1024, "
         "2048, 3072, 4096, 5120 or 6144, not 1000"),
        ('[update]\npolicy = "slow"', "endpoint.toml:3: update.policy: should be 'all-at-once', "
         "'canary', 'linear' or 'rolling', not 'slow'"),
        ("keep = 0", "endpoint.toml:2: keep: should be greater than or equal to 1, not 0"),
        ('[instance]\ntype = "m5"',
         "endpoint.toml:3: instance.type: 'm5' is not an instance type, such as ml.m5.large"),
        ("[async]\nconcurrency = 1", "endpoint.toml:2: async.output: is missing"),
        ("[scaling]\nmax = 3", "endpoint.toml:2: scaling.target: is missing"),
    ],
)  # fmt: skip
def test_a_fault_names_the_line_and_what_is_allowed(text: str, told: str) -> None:
    with pytest.raises(Usage) as caught:
        loaded(text)

    assert told in caught.value.message


def test_a_fault_of_a_flag_is_not_blamed_on_the_file() -> None:
    with pytest.raises(Usage, match="flags: keep"):
        loaded("keep = 2", keep=0)


@pytest.mark.parametrize("name", ["wine_1", "-wine", "wine-", "w" * 64, ""])
def test_names_that_sagemaker_refuses_are_refused(name: str) -> None:
    with pytest.raises(Usage, match="name"):
        load(None, {"name": name})


def test_flags_win_and_a_mode_drops_the_other() -> None:
    settings = loaded("[instance]\ncount = 2", serverless={"memory_mb": 1024})

    assert settings.mode == "serverless"
    assert settings.instance is None


def test_a_broken_file_is_a_sentence() -> None:
    with pytest.raises(Usage, match="is not TOML"):
        loaded("x = ")


# One text for each row of the table, in the table's order.
REFUSED = (
    "[serverless]\n[instance]",
    '[serverless]\n[async]\noutput = "s3://b/o"',
    '[serverless]\n[vpc]\nsubnets = ["a"]\nsecurity_groups = ["b"]',
    "network_isolation = true\n[serverless]",
    '[serverless]\n[capture]\ndestination = "s3://b/c"',
    '[serverless]\n[shadow]\nmodel = "x"',
    '[serverless]\n[update]\npolicy = "rolling"',
    'model = "s3://b/m/"\n[serverless]',
    'image = "localhost:5000/x"\n[serverless]',
    "[serverless]\nconcurrency = 2\nprovisioned = 3",
    "[serverless]\n[scaling]\nmax = 3\ntarget = 0.5",
    "[serverless]\nprovisioned = 1\n[scaling]\nmax = 3\ntarget = 70",
    "[scaling]\nmin = 4\nmax = 3\ntarget = 70",
    "[scaling]\nmin = 0\nmax = 3\ntarget = 70",
    '[scaling]\nmax = 3\ntarget = 70\n[scaling.schedules.a]\nwhen = "rate(1 day)"',
    '[scaling]\nmax = 3\ntarget = 70\n[scaling.schedules.a]\nwhen = "rate(1 day)"\nmax = 2\n'
    'timezone = "Europe/Nowhere"',
    '[scaling]\nmax = 3\ntarget = 70\nmetric = "backlog"',
    '[instance]\ntype = "ml.m5d.large"\nvolume_gb = 10',
    '[instance]\ntype = "ml.m5d.large"\n[kms]\nvolume = "k"',
    '[shadow]\nmodel = "x"\ntype = "ml.g5.xlarge"\n[kms]\nvolume = "k"',
    '[instance]\ntype = "ml.t3.medium"',
    '[instance]\nfallbacks = ["ml.c7g.large"]',
    '[serverless]\n[variants.b]\nmodel = "x"\nweight = 1',
    '[shadow]\nmodel = "x"\n[variants.b]\nmodel = "x"\nweight = 1',
    '[models]\n[variants.b]\nmodel = "x"\nweight = 1',
    '[variants.b]\nmodel = "x"\nweight = 1\n[update]\npolicy = "rolling"',
    '[variants.AllTraffic]\nmodel = "x"\nweight = 1',
    '[instance]\ncount = 2\n[shadow]\nmodel = "x"\n[update]\npolicy = "rolling"',
    '[update]\npolicy = "canary"',
    '[instance]\ncount = 2\n[update]\npolicy = "canary"\npercent = 60',
    '[instance]\ncount = 2\n[update]\npolicy = "linear"\npercent = 5',
    '[instance]\ncount = 2\n[update]\npolicy = "rolling"\npercent = 60',
    '[instance]\ncount = 2\n[update]\npolicy = "rolling"\ntermination_seconds = 5',
    "[update]\nauto_rollback = true",
    '[update]\nerror_rate = 0.1\nalarms = ["a","b","c","d","e","f","g","h","i","j"]',
    '[instance]\ncount = 2\n[update]\npolicy = "linear"\npercent = 10\nwait_seconds = 600\n'
    "max_seconds = 3000",
    '[instance]\ntype = "ml.inf1.xlarge"\ncount = 2\n[update]\npolicy = "canary"',
    'network_isolation = true\n[environment]\nSAGEMAKER_SUBMIT_DIRECTORY = "s3://b/c.tar.gz"',
    "[environment]\n" + "\n".join(f'K{n} = "{"x" * 1000}"' for n in range(40)),
    '[tags]\n"aws:x" = "1"',
    'model = "m.joblib"\n[models]',
    'model = "m.joblib"\nmodel_package = "wine"',
    "[serverless]\n[models]",
    '[models]\n[async]\noutput = "s3://b/o"',
    '[models]\n[shadow]\nmodel = "x"',
    '[models]\n[smoke]\nbody = "1"',
    'model = "s3://b/m.tar.gz"\ncode = "code"',
)


@pytest.mark.parametrize(("rule", "text"), list(zip(combinations.RULES, REFUSED, strict=True)),
                         ids=lambda value: getattr(value, "key", ""))  # fmt: skip
def test_each_combination_that_sagemaker_refuses_is_refused_with_its_reason(
    rule: combinations.Rule, text: str
) -> None:
    settings = loaded(text)

    with pytest.raises(Refused) as caught:
        combinations.check(settings, lambda key: "endpoint.toml:1: ")
    assert f"endpoint.toml:1: {rule.key}: {rule.reason}" in caught.value.message


def test_isolation_is_on_where_nothing_needs_the_network() -> None:
    assert combinations.isolated(loaded(""), "")
    assert not combinations.isolated(loaded("[serverless]"), "")
    assert not combinations.isolated(loaded(""), "requirements.txt")
    assert not combinations.isolated(loaded("network_isolation = false"), "")
    with pytest.raises(Refused, match="requirements"):
        combinations.isolated(loaded("network_isolation = true"), "requirements.txt")


def test_lines_are_found_in_tables_and_dotted_keys() -> None:
    text = 'a = 1\n[b]\nc = 2\n[d.e]\nf = 3\n[b.g]\n"h i" = 4\n'

    assert line_of(text, ["a"]) == 1
    assert line_of(text, ["b", "c"]) == 3
    assert line_of(text, ["b", "x"]) == 2
    assert line_of(text, ["d", "e", "f"]) == 5
    assert line_of(text, ["b", "g", "h i"]) == 7


@pytest.mark.parametrize(("kind", "needed"), [("ml.m5.large", "amd64"), ("ml.c7g.large", "arm64"),
                                              (None, "amd64")])  # fmt: skip
def test_the_instance_type_decides_the_architecture(kind: str | None, needed: str) -> None:
    assert combinations.architecture(kind) == needed


EXAMPLE = ROOT / "examples" / "endpoint.toml"
PAGE = ROOT / "docs" / "30-deployment.md"


def test_the_example_is_good_as_it_stands() -> None:
    combinations.check(load(EXAMPLE, {}))


def test_the_example_shows_every_key_there_is() -> None:
    """With its comments taken off it is one file of every table; modes that exclude are checked."""
    lines = [re.sub(r"^# (?=\[|\w+ = )", "", line) for line in EXAMPLE.read_text().splitlines()]
    content = tomllib.loads("\n".join(lines))
    for table, known in tables(Settings):
        shown = content if not table else content[table]
        if table == "variants":  # tables by name, all alike
            shown = next(iter(shown.values()))
        missing = known - set(shown) - NOT_SHOWN.get(table, set())
        assert not missing, f"[{table}] does not show {sorted(missing)}"
    load(None, {key: value for key, value in content.items() if key != "image"})


# Keys that only few need: the page lists them.
NOT_SHOWN = {
    "": {"profile"},
    "async": {"failure", "concurrency", "success_topic", "error_topic"},
    "scaling": {"metric", "scale_in_seconds", "scale_out_seconds"},
    "update": {"termination_seconds", "max_seconds", "auto_rollback"},
    "shadow": {"code", "choose", "image", "type", "count"},
    "variants": {"code", "choose", "image", "type", "count"},
    "capture": {"what"},
}


def tables(settings: Any) -> list[tuple[str, set[str]]]:
    """Return each table's name ("" for the top) and its keys."""
    found: list[tuple[str, set[str]]] = []
    top = {field.alias or name: field for name, field in settings.model_fields.items()}
    top.pop("folder")
    found.append(("", set(top)))
    for name, field in top.items():
        for kind in getattr(field.annotation, "__args__", (field.annotation,)):
            if isinstance(kind, type) and issubclass(kind, Table):
                keys = {field.alias or key for key, field in kind.model_fields.items()}
                found.append((name, keys))
    return found


def test_the_page_names_every_word_and_every_key() -> None:
    text = PAGE.read_text()
    for word in deploy.main.commands:
        assert f"deploy.py {word}" in text, word
    for flag, _, _ in deploy.FLAGS:
        assert flag in text, flag
    for _, keys in tables(Settings):
        for key in keys:
            assert re.search(rf"`{re.escape(key)}`|\[{re.escape(key)}\]", text), key

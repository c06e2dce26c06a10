"""Where the user's code comes from, and what its requirements.txt may do."""

from __future__ import annotations

import hashlib
import http.server
import io
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from skserve.config import Config
from skserve.errors import StartError
from skserve.inference import hooks, requirements, source
from skserve.inference.source import Source
from tests.test_artifact import as_nobody, reachable

SCRIPT = "def predict_fn(data, model): return [42]\n"


def fetch(folder: Path, **settings: object) -> source.Source | None:
    return source.fetch(folder, Config(**settings))


def archive(path: Path, **files: str) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name.replace("__", "."))
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return path


@pytest.fixture(autouse=True)
def _scratch(tmp_path, monkeypatch):
    """Keep what is fetched below this test's folder."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))


def test_code_is_looked_for_in_the_order_of_awss_images(tmp_path):
    assert fetch(tmp_path) is None

    (tmp_path / "inference.py").write_text(SCRIPT)
    assert fetch(tmp_path).folder == tmp_path

    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "inference.py").write_text(SCRIPT)
    assert fetch(tmp_path).folder == tmp_path / "code"

    (tmp_path / "code" / "serve_me.py").write_text(SCRIPT)
    assert fetch(tmp_path, program="serve_me.py").program == "serve_me.py"
    assert fetch(tmp_path, program="serve_me").program == "serve_me.py"

    other = tmp_path / "other"
    other.mkdir()
    (other / "inference.py").write_text(SCRIPT)
    assert fetch(tmp_path, submit_directory=str(other)).folder == other
    assert fetch(tmp_path, submit_directory=f"file://{other}").folder == other


def test_an_archive_is_unpacked_below_the_temporary_folder(tmp_path):
    path = archive(tmp_path / "sourcedir.tar.gz", inference__py=SCRIPT)

    found = fetch(tmp_path, submit_directory=str(path))

    assert found.folder.is_relative_to(tmp_path / "scratch")
    assert (found.folder / "inference.py").read_text() == SCRIPT


def test_code_that_is_named_must_be_there(tmp_path):
    with pytest.raises(StartError, match=r"no nowhere\.py in .*SAGEMAKER_PROGRAM"):
        fetch(tmp_path, program="nowhere")
    with pytest.raises(StartError, match="/no/such/place, which does not exist"):
        fetch(tmp_path, submit_directory="/no/such/place")
    (tmp_path / "broken.tar.gz").write_bytes(b"broken")
    with pytest.raises(StartError, match=r"broken\.tar\.gz cannot be unpacked"):
        fetch(tmp_path, submit_directory=str(tmp_path / "broken.tar.gz"))


def test_a_code_folder_without_the_script_is_mentioned(tmp_path, caplog):
    caplog.set_level("INFO", "skserve")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "predict.py").write_text(SCRIPT)
    (tmp_path / "code" / "helpers.py").write_text("")

    assert fetch(tmp_path) == Source(tmp_path / "code", None)
    assert "code/ has no inference.py; it holds helpers.py, predict.py." in caplog.text
    assert "SAGEMAKER_PROGRAM" in caplog.text
    caplog.clear()
    assert fetch(tmp_path, program="predict.py").program == "predict.py"
    assert caplog.text == ""


def test_code_that_may_not_be_read_is_named():
    with reachable() as folder:
        (folder / "code").mkdir(mode=0)
        with as_nobody(), pytest.raises(StartError, match=r"/code\S* cannot be read by user \d"):
            fetch(folder)


@pytest.fixture(scope="module")
def s3():
    """Return the address of a real HTTP server that speaks S3."""
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


def test_code_comes_from_s3(tmp_path, s3, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    client = boto3.client("s3", endpoint_url=s3, region_name="us-east-1")
    client.create_bucket(Bucket="models")
    path = archive(tmp_path / "sourcedir.tar.gz", inference__py=SCRIPT)
    client.upload_file(str(path), "models", "a/b/sourcedir.tar.gz")
    where = {"s3_endpoint": s3, "region": "us-east-1"}

    found = fetch(tmp_path, submit_directory="s3://models/a/b/sourcedir.tar.gz", **where)

    assert (found.folder / "inference.py").read_text() == SCRIPT
    with pytest.raises(StartError, match=r"s3://models/nothing, which cannot be downloaded: .*404"):
        fetch(tmp_path, submit_directory="s3://models/nothing", **where)


def test_s3_without_a_network_fails_soon_and_says_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(StartError, match="network isolation the code must be in the model"):
            fetch(tmp_path, submit_directory="s3://b/k.tar.gz", s3_endpoint=url, region="us-east-1")
    assert time.monotonic() - began < 10


def wheel(
    folder: Path,
    name: str,
    code: str,
    requires: str = "",
    compiled: bool = False,
    version: str = "1.0",
) -> None:
    """Write the smallest wheel that pip installs."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += f"Requires-Dist: {requires}\n" if requires else ""
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
        file.writestr(f"{name}/__init__.py", code)
        if compiled:
            file.writestr(f"{name}/fast.so", b"\x7fELF")
        file.writestr(f"{info}/METADATA", metadata)
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/RECORD", "")


@pytest.fixture
def code(tmp_path):
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "inference.py").write_text(SCRIPT)
    return folder


@pytest.fixture
def _no_network(monkeypatch):
    """Give pip an index that does not answer."""
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_FIND_LINKS", "")


@pytest.mark.usefixtures("_no_network")
def test_bundled_wheels_are_installed_without_a_network(tmp_path, code):
    wheel(code / "wheels", "greeting", "WORD = 'hello'", requires="numpy")
    (code / "requirements.txt").write_text("greeting==1.0  # bundled\n")

    found = fetch(tmp_path)

    assert (found.library / "greeting" / "__init__.py").is_file()
    assert not (found.library / "numpy").exists()  # the image's own serves


REPLACED = {
    "a package that the image has": ("urllib3==2.0.1\n", {"urllib3"}),
    "one of which another needs a version": ("greeting\n", {"greeting", "urllib3"}),
    "in another spelling": ("Urllib3 == 2.0.1  # ours\n", {"urllib3"}),
    "beside one that is held": ("numpy\nurllib3<2.0.2\n", {"urllib3"}),
}


# pip as it is in the image for a user who may not write the environment.
PIP_OF_NOBODY = """
import site, sys
from pip._internal.cli.main import main
from pip._internal.commands import install
site.ENABLE_USER_SITE = True
install.site_packages_writable = lambda **places: False
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("lines", "brought"), REPLACED.values(), ids=REPLACED)
@pytest.mark.usefixtures("_no_network")
def test_packages_of_the_image_are_replaced_by_a_user_who_may_not_write_it(
    code, monkeypatch, lines, brought
):
    def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", PIP_OF_NOBODY, *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)

    monkeypatch.setattr(requirements, "_run_pip", run)
    wheel(code / "wheels", "urllib3", "WORD = 'ours'", version="2.0.1")
    wheel(code / "wheels", "greeting", "", requires="urllib3==2.0.1")
    (code / "requirements.txt").write_text(lines)

    library = requirements.install(code)

    assert {path.parent.name for path in library.glob("*/__init__.py")} == brought


@pytest.mark.usefixtures("_no_network")
def test_without_a_network_a_missing_package_is_said_within_seconds(tmp_path, code):
    (code / "requirements.txt").write_text("no-such-package-anywhere==1.0\n")

    began = time.monotonic()
    with pytest.raises(StartError, match=r"ERROR: .*no-such-package-anywhere.*code/wheels"):
        fetch(tmp_path)
    assert time.monotonic() - began < 10


@pytest.mark.usefixtures("_no_network")
def test_the_versions_that_a_model_depends_on_are_held(tmp_path, code):
    wheel(code / "wheels", "greedy", "", requires="numpy<1")
    (code / "requirements.txt").write_text("greedy\n")

    with pytest.raises(
        StartError, match=r"ERROR: .*greedy.* numpy<1.*constraint.* stay at the image's"
    ):
        fetch(tmp_path)


@pytest.mark.usefixtures("_no_network")
def test_what_is_named_by_path_url_or_link_is_installed_from_there(tmp_path, code):
    """Also with spaces in the paths, and all hidden from the index."""
    elsewhere = code / "my wheels"
    for name in ("by_path", "by_url", "by_link"):
        wheel(elsewhere, name, "", requires="numpy")
    (code / "requirements.txt").write_text(
        f"--find-links '{elsewhere}'\n"
        "./my wheels/by_path-1.0-py3-none-any.whl\n"
        f"by_url @ {(elsewhere / 'by_url-1.0-py3-none-any.whl').as_uri()}\n"
        "by_link\n"
    )

    found = fetch(tmp_path)

    assert {"by_path", "by_url", "by_link"} <= {path.name for path in found.library.iterdir()}
    assert not (found.library / "numpy").exists()


@contextmanager
def index(*wheels: Path) -> Iterator[str]:
    """Serve a package index whose file is the first of `wheels`, the next time the second."""
    left = list(wheels)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            content = f'<a href="{wheels[0].name}">x</a>'.encode()
            if self.path.endswith(".whl"):
                content = (left.pop(0) if len(left) > 1 else left[0]).read_bytes()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/simple"
        server.shutdown()


@pytest.mark.usefixtures("_no_network")
def test_the_index_that_the_file_names_is_the_one_that_is_used(tmp_path, code, monkeypatch):
    name = "greeting-1.0-py3-none-any.whl"
    wheel(tmp_path / "ours", "greeting", "WHOSE = 'ours'")
    wheel(tmp_path / "theirs", "greeting", "WHOSE = 'theirs'")
    with index(tmp_path / "ours" / name) as ours, index(tmp_path / "theirs" / name) as theirs:
        monkeypatch.setenv("PIP_INDEX_URL", theirs)
        (code / "requirements.txt").write_text(f"--index-url {ours}\ngreeting\n")
        found = fetch(tmp_path)

    assert (found.library / "greeting" / "__init__.py").read_text() == "WHOSE = 'ours'"


@pytest.mark.usefixtures("_no_network")
def test_a_pinned_hash_holds_for_what_is_installed(tmp_path, code, monkeypatch):
    name = "greeting-1.0-py3-none-any.whl"
    wheel(tmp_path / "good", "greeting", "")
    wheel(tmp_path / "evil", "greeting", "import evil")
    digest = hashlib.sha256((tmp_path / "good" / name).read_bytes()).hexdigest()
    (code / "requirements.txt").write_text(f"greeting==1.0 --hash=sha256:{digest}\n")
    with index(tmp_path / "good" / name) as url:
        monkeypatch.setenv("PIP_INDEX_URL", url)
        assert (fetch(tmp_path).library / "greeting").is_dir()
    # The file changes between pip's two steps.
    with index(tmp_path / "good" / name, tmp_path / "evil" / name) as url:
        monkeypatch.setenv("PIP_INDEX_URL", url)
        with pytest.raises(StartError, match="HASHES"):
            fetch(tmp_path)


def test_folders_and_clones_are_asked_for_as_they_are():
    def pinned(**origin: object) -> str:
        return requirements._pinned({"metadata": {"name": "x"}, "download_info": origin})

    assert pinned(url="file:///a%20b", dir_info={}) == "x @ file:///a%20b"
    git = {"vcs": "git", "commit_id": "c0ffee"}
    assert pinned(url="https://h/r.git", vcs_info=git) == "x @ git+https://h/r.git@c0ffee"
    packed = {"hashes": {"sha256": "12"}}
    assert (
        pinned(url="https://h/x.zip", archive_info=packed, subdirectory="y")
        == "x @ https://h/x.zip#sha256=12&subdirectory=y"
    )


@pytest.mark.usefixtures("_no_network")
def test_compiled_code_where_nothing_may_be_executed_is_refused(tmp_path, code):
    wheel(code / "wheels", "compiled", "", compiled=True)
    (code / "requirements.txt").write_text("compiled\n")
    scratch = tmp_path / "scratch"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "noexec", "none", scratch], check=False)
    if mounted.returncode:
        pytest.skip("mounting needs root")
    try:
        with pytest.raises(StartError, match=r"compiled code \(fast\.so\), but .* mounted noexec"):
            fetch(tmp_path)
    finally:
        subprocess.run(["umount", "--lazy", scratch], check=True)


def test_pip_is_that_of_this_interpreter():
    assert shutil.which(sys.executable)
    assert requirements._run_pip(["--version"], Path("/")).returncode == 0


def test_a_class_of_the_notebook_is_found_in_a_package_below_code(tmp_path):
    package = tmp_path / "code" / "rules" / "inner"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (tmp_path / "code" / "rules" / "__init__.py").write_text("")
    (package / "deep.py").write_text("class OnlyHere:\n    depth = 3\n")

    script = hooks.load(fetch(tmp_path))

    assert not script
    assert script.lookup("OnlyHere").depth == 3
    with pytest.raises(AttributeError):
        script.lookup("Nowhere")


def test_a_package_that_the_server_has_imported_is_named(tmp_path, caplog):
    record = tmp_path / "site" / "orjson-99.0.dist-info"
    record.mkdir(parents=True)
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: orjson\nVersion: 99.0\n")
    (record / "RECORD").write_text("orjson/__init__.py,,\n")
    (tmp_path / "code").mkdir()

    hooks.load(Source(tmp_path / "code", None, tmp_path / "site"))

    assert "brings orjson 99.0, which the server itself has imported" in caplog.text

"""A fresh clone, and docs/30-deployment.md from first to last, against make cloud."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import joblib
import pytest
from sklearn.datasets import load_wine
from sklearn.tree import DecisionTreeClassifier

from tests.conftest import free_port
from tests.deployment.conftest import ROOT
from tests.deployment.local_cloud import LocalCloud, running, until
from tests.test_image import engine, required

pytestmark = [
    pytest.mark.soak,
    pytest.mark.docker,
    pytest.mark.skipif(not required() and not engine(), reason="no Docker engine"),
]
PAGE = ROOT / "docs" / "30-deployment.md"
# What a test does elsewhere: the environment is there already, and the cloud runs.
SKIPPED = ("python3 -m venv", "pip install", "make cloud")
WAITS = re.compile(r"deploy\.py(?: (?:--|rollback|delete|transform)|$)")


@dataclass
class Block:
    """A console block of the page: its heading, its commands, and the text after the first."""

    heading: str
    commands: list[str]
    output: str


def blocks() -> list[Block]:
    found, heading = [], ""
    for part in re.finditer(r"^(#+ [^\n]*)$|```console\n(.*?)```", PAGE.read_text(), re.M | re.S):
        heading = part[1] or heading
        if part[2]:
            lines = part[2].splitlines()
            commands = [line[2:] for line in lines if line.startswith("$ ")]
            found.append(Block(heading, commands, "\n".join(lines[1:])))
    return found


@dataclass
class Reader:
    """Who types the page's commands into a shell."""

    cloud: LocalCloud
    folder: Path

    def type(self, command: str, code: int | None = 0) -> str:
        command = command.replace("python deploy.py", f"{sys.executable} {ROOT / 'deploy.py'}")
        command = command.replace("./build_and_push.sh", str(ROOT / "build_and_push.sh"))
        if WAITS.search(command):
            command += " --poll 0.2"
        done = subprocess.run(["bash", "-c", command], cwd=self.folder, env=self.cloud.environ,
                              capture_output=True, text=True, timeout=400, check=False)  # fmt: skip
        assert code is None or done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def settings(self, text: str) -> None:
        (self.folder / "endpoint.toml").write_text(text)


@dataclass
class Walk:
    """The page's two folders, and what a reader does between its commands."""

    one: Reader
    many: Reader
    image: str = ""

    def before(self, command: str) -> None:
        """Do what the page tells in words before a command."""
        if command == "python deploy.py role --create":
            wine = next(re.finditer(r"```toml\n(.*?)```", PAGE.read_text(), re.S))[1]
            self.one.settings(re.sub(r'image = ".*?"', f'image = "{self.image}"', wine))
            self.many.settings(
                f'name = "many"\nimage = "{self.image}"\nrole = "skserve"\n[models]\n'
            )
        if command == "python deploy.py rollback":  # there is a change to go back from
            tree = DecisionTreeClassifier(max_depth=3).fit(*load_wine(return_X_y=True))
            joblib.dump(tree, self.one.folder / "model.joblib")
            self.one.type("python deploy.py")
        if "--target-model" in command:
            self.many.type("python deploy.py")

    def type(self, block: Block, command: str) -> None:
        reader = self.many if block.heading == "### Many models" else self.one
        if "error: endpoint.toml" in block.output:
            reader.settings('name = "wine"\n\n\n\n\n[serverless]\nmemory_mb = 1000\n')
            reader.type(command, code=2)
            return
        self.before(command)
        if "--target-model" in command:  # the models here know flowers, and the page two numbers
            command = re.sub(r"--data \S+", "--data 5.1,3.5,1.4,0.2", command)
        told = reader.type(command)
        if command.startswith("./build_and_push.sh"):
            self.image = told.strip()


def test_a_fresh_clone_becomes_an_endpoint_by_three_commands(tmp_path: Path) -> None:
    clone, venv = tmp_path / "clone", Path(sys.prefix)
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    options = f"--port {free_port()} --docker-port {free_port()}"
    given = [f"--assume-old={venv / part}" for part in ("dev", "serve")]  # what it would install
    words = ["make", "--silent", *given, "cloud", f"VENV={venv}", f"CLOUD={options}"]
    environ = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    environ["DOCKER_CONFIG"] = str(tmp_path / "docker")
    with subprocess.Popen(words, cwd=clone, env=environ, text=True, stdout=subprocess.PIPE,
                          start_new_session=True) as make:  # fmt: skip
        try:
            assert make.stdout is not None
            exports = []
            while not exports or not exports[-1].startswith("export PATH="):
                exports.append(make.stdout.readline())

            def typed(command: str) -> str:
                return subprocess.run(
                    ["bash", "-e"], input="".join(exports) + command, cwd=clone, env=environ,
                    text=True, stdout=subprocess.PIPE, timeout=600, check=True,
                ).stdout  # fmt: skip

            assert "/skserve@sha256:" in typed("./build_and_push.sh")
            assert "iris: done; in service" in typed("python deploy.py < /dev/null")
            assert typed("python deploy.py invoke --data 5.1,3.5,1.4,0.2") == "[0]"
            cloud = LocalCloud(clone / "build")  # the folder that make's cloud is known by
            assert cloud.containers()
            typed("python deploy.py delete --yes")
            until(lambda: not cloud.containers(), 60)
        finally:
            os.killpg(make.pid, signal.SIGINT)


def test_every_command_of_the_deployment_page_works(
    tmp_path: Path, models: Callable[[str], Path]
) -> None:
    with running(tmp_path / "cloud") as cloud:
        walk = Walk(Reader(cloud, tmp_path / "one"), Reader(cloud, tmp_path / "many"))
        for reader, name in ((walk.one, "wine"), (walk.many, "iris")):
            reader.folder.mkdir()
            shutil.copy(models(name) / "model.joblib", reader.folder)
        shutil.copy(models("iris") / "model.joblib", walk.many.folder / "b.joblib")
        row = re.search(r'body = "(.*?)"', PAGE.read_text())
        assert row is not None
        (walk.one.folder / "rows.csv").write_text(f"{row[1]}\n{row[1]}\n")
        for block in blocks():
            for command in block.commands:
                if not command.startswith(SKIPPED):
                    walk.type(block, command)
        walk.many.type("python deploy.py delete --yes")
        until(lambda: not cloud.containers(), 120)

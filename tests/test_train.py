"""`train` as a process: the contract with SageMaker, and scripts written for AWS's image."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from skserve import telemetry
from skserve.config import Config
from skserve.training import supervise
from tests.conftest import ROOT, serving
from tests.test_source import wheel


@dataclass
class Place:
    """A folder laid out as SageMaker mounts /opt/ml."""

    base: Path
    environ: dict[str, str] = field(default_factory=dict)

    def config(self, name: str, value: Any) -> None:
        text = value if isinstance(value, str) else json.dumps(value)
        (self.base / "input" / "config" / f"{name}.json").write_text(text)

    def hyperparameters(self, **values: Any) -> None:
        self.config("hyperparameters", {n: v if isinstance(v, str) else json.dumps(v)
                                        for n, v in values.items()})  # fmt: skip

    def channel(self, name: str, **files: str | bytes) -> Path:
        folder = self.base / "input" / "data" / name
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            path = folder / file.replace("__", ".")
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return folder

    def script(self, text: str, name: str = "train.py", **hyperparameters: Any) -> None:
        (self.base / "code").mkdir(exist_ok=True)
        (self.base / "code" / name).write_text(text)
        self.hyperparameters(sagemaker_program=name, **hyperparameters)

    def start(self) -> subprocess.Popen[str]:
        environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SM_")},
            "PYTHONPATH": str(ROOT / "container"),
            "SAGEMAKER_BASE_DIR": str(self.base),
            "SAGEMAKER_PROGRAM": "",
            **self.environ,
        }
        return subprocess.Popen(
            [sys.executable, "-m", "skserve", "train"], env=environ, cwd="/", text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def train(self, code: int | None = 0) -> tuple[str, str]:
        """Run the job and return what it said on stdout and stderr."""
        running = self.start()
        out, err = running.communicate(timeout=120)
        assert code is None or running.returncode == code, f"{running.returncode}\n{out}\n{err}"
        return out, err

    def stopped(self, when: str, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Run the job, send a signal once a file of that name exists, and return how it ended."""
        running = self.start()
        deadline = time.monotonic() + 60
        while not (self.base / "output" / when).exists():
            assert time.monotonic() < deadline
            assert running.poll() is None, running.communicate()
            time.sleep(0.02)
        running.send_signal(number)
        _, err = running.communicate(timeout=60)
        return running.returncode, err

    @property
    def failure(self) -> str:
        return (self.base / "output" / "failure").read_text()

    @property
    def first_line(self) -> str:
        """What SageMaker's users see: the reason, within its 1,024 characters."""
        first = self.failure.splitlines()[0]
        assert len(first) < 1024
        return first


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "ml" / "input" / "config").mkdir(parents=True)
    return Place(tmp_path / "ml")


REPORT = """
import json, os, sys
from pathlib import Path
told = {"argv": sys.argv[1:], "cwd": os.getcwd(), "environ": dict(os.environ)}
Path(os.environ["SM_OUTPUT_DATA_DIR"], "told.json").write_text(json.dumps(told))
Path(os.environ["SM_MODEL_DIR"], "model.txt").write_text("x")
"""


def told(place: Place) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((place.base / "output" / "data" / "told.json").read_text())
    return found


# What AWS's mapping.to_cmd_args and to_env_vars make of each value, by their documented rules.
VALUES = [
    ("0.1", "0.1", "0.1"),
    ("0.10", "0.1", "0.1"),
    ("1e3", "1000.0", "1000.0"),
    ("5", "5", "5"),
    ("null", "None", ""),
    ("true", "True", "true"),
    ("[1,2]", "[1, 2]", "[1,2]"),
    ('["a", "b"]', "['a', 'b']", '["a","b"]'),
    ('{"b": 1, "a": "x"}', "a=x,b=1", '{"a":"x","b":1}'),
    ("plain", "plain", "plain"),
    ('"quoted"', "quoted", "quoted"),
    ('it\'s "so"', 'it\'s "so"', 'it\'s "so"'),
    ("Grüner Veltliner 🍇", "Grüner Veltliner 🍇", "Grüner Veltliner 🍇"),
    ("", "", ""),
    ("two\nlines $HOME `x`", "two\nlines $HOME `x`", "two\nlines $HOME `x`"),
    ("007", "007", "007"),
    ("[" * 2400, "[" * 2400, "[" * 2400),
]


def test_hyperparameters_reach_the_script_as_aws_spells_them(place):
    given = {f"p{at:02d}": text for at, (text, _, _) in enumerate(VALUES)}
    place.script(REPORT, **given, **{"a": "1", "learning-rate": "0.5"})

    place.train()

    found = told(place)
    arguments = [word for at, (_, spelled, _) in enumerate(VALUES)
                 for word in (f"--p{at:02d}", spelled)]  # fmt: skip
    assert found["argv"] == ["-a", "1", "--learning-rate", "0.5", *arguments]
    environ = found["environ"]
    assert [environ[f"SM_HP_P{at:02d}"] for at in range(len(VALUES))] == [v for _, _, v in VALUES]
    assert environ["SM_HP_LEARNING-RATE"] == "0.5"
    assert json.loads(environ["SM_HPS"])["p06"] == [1, 2]
    assert json.loads(environ["SM_USER_ARGS"]) == found["argv"]


def test_a_script_finds_every_variable_of_awss_toolkit(place):
    hosts = {"current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "eth1"}
    place.config("resourceconfig", hosts)
    place.config("inputdataconfig", {"train": {"TrainingInputMode": "File"}, "test-set": {}})
    place.script(REPORT, depth="3", sagemaker_region="eu-west-1", sagemaker_job_name="wine-1")

    place.train()

    found, base = told(place), str(place.base)
    environ = found["environ"]
    assert found["cwd"] == f"{base}/code"
    expected = {
        "SM_MODEL_DIR": f"{base}/model",
        "SM_OUTPUT_DIR": f"{base}/output",
        "SM_OUTPUT_DATA_DIR": f"{base}/output/data",
        "SM_OUTPUT_INTERMEDIATE_DIR": f"{base}/output/intermediate",
        "SM_INPUT_DIR": f"{base}/input",
        "SM_INPUT_CONFIG_DIR": f"{base}/input/config",
        "SM_CHANNELS": '["test-set","train"]',
        "SM_CHANNEL_TRAIN": f"{base}/input/data/train",
        "SM_CHANNEL_TEST-SET": f"{base}/input/data/test-set",
        "SM_HPS": '{"depth":3}',
        "SM_HP_DEPTH": "3",
        "SM_USER_ARGS": '["--depth","3"]',
        "SM_USER_ENTRY_POINT": "train.py",
        "SM_MODULE_NAME": "train",
        "SM_MODULE_DIR": f"{base}/code",
        "SM_HOSTS": '["algo-1"]',
        "SM_CURRENT_HOST": "algo-1",
        "SM_NETWORK_INTERFACE_NAME": "eth1",
        "SM_CURRENT_INSTANCE_TYPE": "local",
        "SM_CURRENT_INSTANCE_GROUP": "homogeneousCluster",
        "SM_CURRENT_INSTANCE_GROUP_HOSTS": '["algo-1"]',
        "SM_INSTANCE_GROUPS": "[]",
        "SM_INSTANCE_GROUPS_DICT": "{}",
        "SM_DISTRIBUTION_INSTANCE_GROUPS": "[]",
        "SM_IS_HETERO": "false",
        "SM_NUM_GPUS": "0",
        "SM_NUM_NEURONS": "0",
        "SM_RESOURCE_CONFIG": json.dumps(hosts, sort_keys=True, separators=(",", ":")),
        "SM_INPUT_DATA_CONFIG": '{"test-set":{},"train":{"TrainingInputMode":"File"}}',
        "SM_FRAMEWORK_MODULE": "sagemaker_sklearn_container.training:main",
        "SM_FRAMEWORK_PARAMS": "{}",
        "SM_LOG_LEVEL": "20",
        "SAGEMAKER_JOB_NAME": "wine-1",
        "SAGEMAKER_REGION": "eu-west-1",
        "CURRENT_HOST": "algo-1",
    }
    assert {name: environ.get(name) for name in expected} == expected
    assert int(environ["SM_NUM_CPUS"]) >= 1
    assert environ["OMP_NUM_THREADS"] == environ["SM_NUM_CPUS"]
    assert environ["PYTHONPATH"].split(":")[0] == f"{base}/code"


def test_training_env_of_the_stand_in_reads_the_job(place):
    place.channel("train")
    place.script(
        "from sagemaker_containers.beta.framework import training_env\nenv = training_env()\n"
        "print(env.model_dir, env.channel_input_dirs, env.hyperparameters, env.hosts,"
        " env.is_master, env.num_cpus > 0)",
        depth="3",
    )

    out, _ = place.train()

    base = place.base
    assert out == (
        f"{base}/model {{'train': '{base}/input/data/train'}} {{'depth': 3}} ['algo-1'] True True\n"
    )


def test_a_shell_script_is_run_with_its_arguments_as_they_are(place):
    place.script('printf "%s|" "$@"; pwd', "go.sh", note="a b; $(date) 'c'")

    out, _ = place.train()

    assert out == f"--note|a b; $(date) 'c'|{place.base}/code\n"


def archived(folder: Path, name: str, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / name, "w:gz") as tar:
        for file, text in files.items():
            member = tarfile.TarInfo(file.replace("__", "."))
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))


def test_the_code_may_be_an_archive_in_a_channel(place):
    folder = place.channel("code")
    archived(folder, "sourcedir.tar.gz", train__py="import helper", helper__py="print('helped')")
    place.hyperparameters(
        sagemaker_program="train.py", sagemaker_submit_directory=f"{folder}/sourcedir.tar.gz"
    )

    out, err = place.train()

    assert out == "helped\n"
    assert (place.base / "code" / "helper.py").exists()
    assert "left nothing in" in err


def test_the_code_may_be_a_folder_and_bring_its_requirements(place, tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "train.py").write_text("import greeting, os; print(greeting.WORD, os.getcwd())")
    (folder / "requirements.txt").write_text("greeting\n")
    wheel(folder / "wheels", "greeting", "WORD = 'hello'")
    place.hyperparameters(sagemaker_program="train", sagemaker_submit_directory=str(folder))

    out, _ = place.train()

    assert out == f"hello {place.base}/code\n"


# ---- failures

ARGPARSE = "import argparse; p = argparse.ArgumentParser(); p.add_argument('--depth', type=int)\n"
FAILING = {
    "raise ValueError('the price\\nis negative')": (
        "train.py failed: ValueError: the price is negative (train.py, line 1) (exit code 1)."
    ),
    "import os; os.environ['SM_CHANNEL_TEST']": (
        "The job has no channel test; its channels are: train. Add it to the job's input."
    ),
    "import nonsense": "Add the package to requirements.txt beside the script",
    "raise SystemExit(3)": "train.py ended with exit code 3 and said nothing on stderr",
    "import sys; sys.exit('no such wine')": "train.py failed: no such wine (exit code 1).",
    ARGPARSE + "p.parse_args()": "error: unrecognized arguments: --colour red (exit code 2). The "
    "script does not take these hyperparameters",
    "import os, signal; os.kill(os.getpid(), signal.SIGKILL)": "most likely because it needed more "
    "memory than the",
    "import os; os.kill(os.getpid(), 40)": "train.py was ended by signal 40 after 0:00:0",
    "raise ValueError('x' * 5_000_000)": "train.py failed: ValueError: xxx",
    "import os; os.abort()": "train.py was ended by SIGABRT after 0:00:0",
    "open('/nowhere/x')": "FileNotFoundError: [Errno 2] No such file or directory: '/nowhere/x'",
    "def f(: pass": "SyntaxError: invalid syntax",
    "raise ExceptionGroup('two', [ValueError('inner')])": "train.py failed: ",
    "print('x' * 10)\nraise KeyError('ü' * 5000)": "train.py failed: KeyError: 'üüü",
    "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise ValueError('second') from e": (
        "train.py failed: ValueError: second (train.py, line 4)"
    ),
}


@pytest.mark.parametrize("text", FAILING)
def test_a_failing_script_leaves_a_first_line_that_says_what_to_do(place, text):
    place.channel("train")
    place.script(text, colour="red")

    _, err = place.train(code=1)

    assert FAILING[text] in place.first_line
    assert place.first_line in err
    if "Traceback" in err:
        assert "Traceback (most recent call last):" in place.failure.splitlines()[2]


def test_a_script_may_write_its_own_failure(place):
    place.script("open('../output/failure', 'w').write('mine'); raise SystemExit(1)")

    place.train(code=1)

    assert place.failure == "mine"


def test_an_empty_failure_of_a_script_says_nothing_and_is_written(place):
    place.script("open('../output/failure', 'w'); raise ValueError('the reason')")

    place.train(code=1)

    assert "the reason" in place.first_line


def test_an_earlier_runs_failure_is_forgotten(place):
    place.script("print('fine')")
    (place.base / "output").mkdir()
    (place.base / "output" / "failure").write_text("old")

    place.train()

    assert not (place.base / "output" / "failure").exists()

    (place.base / "output" / "failure").write_text("old")
    place.config("hyperparameters", "{")
    place.train(code=1)

    assert "hyperparameters.json is not JSON" in place.first_line


WRONG = {
    "": "The job does not say what to train: name a script with the hyperparameter",
    "{": "hyperparameters.json is not JSON",
    "[1]": "holds list, expected one JSON object",
    '{"sagemaker_program": "../x.py"}': "expected a path inside the code folder",
    '{"sagemaker_program": "train.py"}': "There is no code: set sagemaker_submit_directory",
    '{"sagemaker_program": "a.py", "sagemaker_submit_directory": "/none"}': (
        "sagemaker_submit_directory is /none, which does not exist"
    ),
    '{"sagemaker_program": "a.py", "sagemaker_submit_directory": "/etc/apt"}': (
        "There is no a.py in the code; it holds"
    ),
    '{"sagemaker_program": "a.py", "sagemaker_container_log_level": "loud"}': "expected a number",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_job_that_cannot_begin_says_why(place, text, monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # in this process, which is pytest's
    monkeypatch.setattr(telemetry, "configure", lambda *_: None)
    place.config("hyperparameters", text)

    assert supervise.train(Config(model_dir=place.base / "model"), {}) == 1

    assert WRONG[text] in place.first_line


def test_a_hyperparameter_that_no_argument_can_hold_is_named_as_the_fault(place):
    place.script(REPORT, note='"a\\u0000b"')

    place.train(code=1)

    assert "train.py cannot be started: embedded null byte" in place.first_line


def test_a_setting_that_does_not_parse_is_a_failure_too(place):
    place.environ["SKSERVE_MODEL_HOSTS"] = "some"
    place.script(REPORT)

    _, err = place.train(code=1)

    assert "SKSERVE_MODEL_HOSTS is 'some'; expected one of first, all." in err


# ---- signals and what a child may do

SAVES = """
import os, signal, sys, time
def save(*_):
    open(os.environ["SM_MODEL_DIR"] + "/model.txt", "w").write("saved")
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
open("../output/ready", "w")
time.sleep(60)
"""


def test_a_script_that_handles_sigterm_saves_its_model(place):
    place.script(SAVES)

    code, err = place.stopped("ready")

    assert code == 0
    assert (place.base / "model" / "model.txt").read_text() == "saved"
    assert "SIGTERM: the training has 115 s to save what it has" in err


def test_a_script_that_does_not_handle_sigterm_ends_at_once_and_it_is_said(place):
    place.script("import time; open('../output/ready', 'w'); time.sleep(60)")

    began = time.monotonic()
    code, err = place.stopped("ready")

    assert (code, time.monotonic() - began < 30) == (143, True)
    assert place.first_line.startswith("train.py was stopped after 0:00:")
    assert "no model was saved: to save one, handle SIGTERM in the script" in place.first_line
    assert "Traceback" not in err


def test_other_signals_reach_the_script(place):
    place.script(SAVES.replace("SIGTERM", "SIGUSR1"))

    assert place.stopped("ready", signal.SIGUSR1)[0] == 0


def test_a_stop_before_the_script_has_begun_is_said(place):
    place.config("resourceconfig", {"current_host": "algo-1", "hosts": ["algo-1", "gone.invalid"]})
    place.script(REPORT)
    with place.start() as running:
        assert running.stderr
        assert "waiting for the address of gone.invalid" in running.stderr.readline()

        running.send_signal(signal.SIGTERM)

        assert running.wait(30) == 143
    assert place.first_line == "Stopped before the training began; nothing was saved."


EARLY = """
import os, runpy, signal, sys
class Stop:
    def find_spec(self, name, *_):
        if name == "skserve.config":
            os.kill(os.getpid(), signal.SIGTERM)
sys.meta_path.insert(0, Stop())
sys.argv = ["skserve", "train"]
runpy.run_module("skserve", run_name="__main__")
"""


def test_a_stop_while_the_program_is_being_loaded_is_not_lost(place):
    environ = os.environ | {"PYTHONPATH": str(ROOT / "container"),
                            "SAGEMAKER_BASE_DIR": str(place.base)}  # fmt: skip

    done = subprocess.run([sys.executable, "-c", EARLY], env=environ, check=False, timeout=60)

    assert done.returncode == 143
    assert place.first_line == "Stopped before the training began; nothing was saved."


OVERDUE = """
import sys
from skserve.training import child
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True)"
run = child.run([sys.executable, "-c", code + "; time.sleep(60)"], {}, "/", 0.5, 0.2)
print(run.status, run.stopped, run.overdue, run.seconds < 30)
"""


def test_a_child_that_ignores_sigterm_is_ended_after_the_grace_and_seen_alive_until_then():
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "container")}
    code = "import logging; logging.basicConfig(level=20)\n" + OVERDUE
    running = subprocess.Popen([sys.executable, "-c", code], env=environ, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    assert running.stdout
    assert running.stdout.readline() == "up\n"
    time.sleep(0.5)
    running.send_signal(signal.SIGTERM)
    out, err = running.communicate(timeout=60)

    assert out == "-9 True True True\n"
    assert "still training after 0:00:00: 0 s of CPU" in err


ORPHANS = """
import os, subprocess, sys, time
for _ in range(20):  # children of a child that has ended belong to process 1
    subprocess.run(["/bin/sh", "-c", "sleep 0.1 &"])
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
open("../output/child", "w").write(str(child.pid))
"""


def test_what_a_script_leaves_running_is_ended_with_it(place):
    place.script(ORPHANS)

    began = time.monotonic()
    place.train()

    assert time.monotonic() - began < 30
    child = Path("/proc", (place.base / "output" / "child").read_text(), "stat")
    assert not child.exists() or child.read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_script_may_print_as_much_as_it_likes(place):
    place.script(
        "import sys\nfor _ in range(12): sys.stderr.write('e' * 1_000_000)\n"
        "for _ in range(12): sys.stdout.write('o' * 1_000_000)\nraise SystemExit('the end')"
    )

    out, err = place.train(code=1)

    assert (out.count("o"), out.strip("o")) == (12_000_000, "")
    assert err.count("e") >= 12_000_000
    assert len(place.failure) < 100_000
    assert len(place.first_line) < 1024


# ---- serving functions in the script

BOTH = """
import os, joblib
def model_fn(model_dir):
    return joblib.load(model_dir + "/model.joblib")
def predict_fn(data, model):
    return [model["word"]] * len(data)
if __name__ == "__main__":
    joblib.dump({"word": "served"}, os.environ["SM_MODEL_DIR"] + "/model.joblib")
"""


def test_serving_functions_go_into_the_model_and_serve(place, tmp_path):
    place.script(BOTH)
    place.train()

    assert {path.name for path in (place.base / "model" / "code").iterdir()} == {
        "inference.py",
        "train.py",
    }
    with serving(place.base / "model", tmp_path / "log") as server:
        assert server.post("[[1], [2]]").json() == ["served", "served"]


def test_code_that_the_script_put_into_the_model_is_kept(place):
    place.script(BOTH + "    os.mkdir(os.environ['SM_MODEL_DIR'] + '/code')\n")
    place.train()

    assert list((place.base / "model" / "code").iterdir()) == []


def test_a_second_run_in_the_same_folder_renews_the_code_in_the_model(place):
    saves = (
        "import os\ndef predict_fn(x, model): return 'NUMBER'\n"
        "folder = os.environ['SM_MODEL_DIR'] + '/1'\nos.makedirs(folder, exist_ok=True)\n"
        "open(folder + '/model.txt', 'w')\n"
        "if not os.path.lexists(folder + '/later'): os.symlink('/nowhere', folder + '/later')\n"
    )
    for number in ("first", "second"):
        place.script(saves.replace("NUMBER", number))
        _, err = place.train()
        assert "left nothing" not in err

    assert "'second'" in (place.base / "model" / "code" / "inference.py").read_text()


def test_a_script_without_serving_functions_is_not_put_into_the_model(place):
    place.script(REPORT)
    place.train()

    assert not (place.base / "model" / "code").exists()


# ---- several hosts


def test_only_the_first_host_writes_the_model_unless_told_otherwise(place):
    hosts = {"current_host": "localhost", "hosts": ["127.0.0.1", "localhost"]}  # names that resolve
    place.config("resourceconfig", hosts)
    place.script(REPORT)
    place.environ["SKSERVE_MODEL_HOSTS"] = "all"

    place.train()
    assert (place.base / "model" / "model.txt").exists()

    (place.base / "model" / "model.txt").unlink()
    place.environ.clear()
    place.train()

    assert list((place.base / "model").iterdir()) == []
    assert told(place)["environ"]["SM_MODEL_DIR"] != f"{place.base}/model"


def test_hosts_that_make_no_sense_are_named(place):
    place.config("resourceconfig", {"current_host": 1, "hosts": [1, "algo-1"]})
    place.script(REPORT)
    place.train(code=1)
    assert "has current_host 1 and hosts [1, 'algo-1']" in place.first_line

    place.config("resourceconfig", {"current_host": "algo-3", "hosts": ["algo-1"]})
    place.script(REPORT)

    place.train(code=1)

    assert "has current_host 'algo-3' and hosts ['algo-1']" in place.first_line


def test_without_code_a_failure_is_said_once(place):
    place.hyperparameters(estimator="5")

    _, err = place.train(code=1)

    assert err == f"skserve: {place.first_line}\n"


def test_without_code_the_other_hosts_have_nothing_to_do(place):
    place.config("resourceconfig", {"current_host": "algo-2", "hosts": ["algo-1", "algo-2"]})
    place.hyperparameters(estimator="sklearn.neighbors.NearestNeighbors")

    _, err = place.train()

    assert "algo-1 fits the model, so algo-2 has nothing to do" in err

"""The processes that a model starts: they end with it."""

from __future__ import annotations

import os
import signal

from tests.many_models import alive, children, error
from tests.servers import until

LEAVES = """
import os, subprocess, sys, time
# Its parent ends at once, it has a session of its own, and a child.
HELPER = "import os, time\\nif not os.fork():\\n os.setsid(); os.fork()"
HELPER += "; os.write(1, b'%d\\\\n' % os.getpid())"
HELPER += "; time.sleep(3600)"
def daemon():
    run = subprocess.Popen([sys.executable, "-uc", HELPER], stdout=subprocess.PIPE, text=True)
    return [int(run.stdout.readline()), int(run.stdout.readline())]
left = daemon()
def predict_fn(data, model):
    deed = int(data[0, 0])
    if deed == 1: left.extend(daemon())
    if deed == 2: os._exit(3)
    return left
"""


def test_nothing_that_a_model_starts_outlives_it(shared, add):
    add(shared.root, "leaves", LEAVES)
    shared.load("leaves")
    shared.load("iris")
    left = shared.invoke("leaves", "1,1,1,1").json()
    assert len(left) == 4
    assert shared.unload("iris").status_code == 200
    assert all(alive(pid) for pid in left)
    assert "exit status 3" in error(shared.invoke("leaves", "2,1,1,1"))
    assert not any(alive(pid) for pid in left)

    left = shared.invoke("leaves", "1,1,1,1").json()
    assert shared.unload("leaves").status_code == 200
    assert not any(alive(pid) for pid in left)
    shared.load("iris")
    assert len(shared.models) == 1
    assert shared.invoke("iris").json() == [0]

    shared.load("leaves")
    left = shared.invoke("leaves", "1,1,1,1").json()
    zygote = shared.zygote
    os.kill(zygote, signal.SIGKILL)
    until(lambda: not any(alive(pid) for pid in left))
    until(lambda: not alive(zygote) and shared.names() == ["iris", "leaves"])
    assert set(children(shared.server.pid)) == {shared.zygote, *shared.workers}


LEAVES_MUCH = """
import os, signal
read, written = os.pipe()
if os.fork() == 0:
    held = bytearray(b"x") * (300 << 20)
    os.write(written, b"1")
    signal.pause()
os.read(read, 1)
"""


def test_a_call_waits_for_the_end_of_what_a_dead_model_has_left(shared, add):
    add(shared.root, "large", LEAVES_MUCH)
    assert shared.load("large").status_code == 200
    os.kill(shared.models[0], signal.SIGKILL)
    statuses = [shared.invoke("large").status_code for _ in range(20)]
    assert set(statuses) <= {200, 500}
    assert statuses[1:] == [200] * 19

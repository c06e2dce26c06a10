"""New connections: which worker takes them."""

from __future__ import annotations

import errno
import os
import signal
import time
from types import SimpleNamespace

from skserve.serving.balancer import Balancer
from skserve.serving.listeners import Listeners
from tests.servers import (
    children,
    connect,
    sockets,
    until,
)


def test_new_connections_go_to_the_worker_that_holds_fewer(servers):
    """No worker of two gets more than 60 %, also after one was killed with connections open."""
    server = servers("iris", SAGEMAKER_MODEL_SERVER_WORKERS="2")
    clients = []
    for _ in range(2):
        time.sleep(0.5)  # both are here
        held = dict.fromkeys(children(server), 0)
        for _ in range(5):
            idle = {pid: sockets(pid) for pid in held}
            for one in clients:  # the last of the round before
                one.close()
            clients = []
            for _ in range(8):
                clients.append(connect(server))
                time.sleep(0.03)
            for pid in held:
                held[pid] += sockets(pid) - idle[pid]
            for one in clients[:-1]:
                one.close()
            time.sleep(0.1)
        assert sum(held.values()) > 20  # of 40, should some still be on their way out
        assert max(held.values()) <= 0.6 * sum(held.values())
        victim = min(held)
        os.kill(victim, signal.SIGKILL)
        until(lambda gone=victim: gone not in children(server))
        until(lambda: len(children(server)) == 2)
    for one in clients:
        one.close()


def test_a_connection_is_taken_though_the_less_loaded_worker_is_stopped(servers):
    server = servers("iris", SAGEMAKER_MODEL_SERVER_WORKERS="2")
    time.sleep(0.5)
    stopped = children(server)[0]
    os.kill(stopped, signal.SIGSTOP)
    try:
        clients = [connect(server) for _ in range(50)]
        for one in clients:
            one.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
        for one in clients:
            one.settimeout(30)
            assert one.recv(12) == b"HTTP/1.1 200"
            one.close()
    finally:
        os.kill(stopped, signal.SIGCONT)


def test_a_worker_that_stands_in_for_another_for_long_looks_no_further_than_the_last_connection(
    monkeypatch,
):
    monkeypatch.setattr("skserve.serving.listeners.PATIENCE", 60)
    looks = []

    def empty() -> None:
        looks.append(1)
        assert len(looks) < 10, "looks for connections that are not there"
        raise BlockingIOError(errno.EAGAIN, "no connection")

    balancer = Balancer(2)
    place = balancer.join()
    listener = SimpleNamespace(fileno=lambda: 0, setblocking=lambda _: None, accept=empty)
    listeners = Listeners([listener], balancer, place, lambda *_: None)
    balancer.say(place, 0)
    balancer.say(1, -5)  # holds fewer, without end
    listeners._left_since, listeners._share = time.monotonic() - 90, 1 << 40
    listeners.accept(0)

    assert len(looks) == 1

"""The poller: it waits for no client and no prediction, and loses no request."""

from __future__ import annotations

import json
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from skserve.serving.balancer import Balancer
from skserve.serving.clients import Client
from skserve.serving.head import Request
from skserve.serving.poller import Poller
from skserve.serving.responses import Answer
from skserve.serving.sizing import Limits
from skserve.serving.standby import AWAY
from tests.conftest import serving, wait_until_ready
from tests.servers import (
    GATED,
    HEAD,
    ONE,
    ROW,
    children,
    connect,
    cpu_seconds,
    until,
)


@pytest.fixture
def poller() -> Iterator[Poller]:
    """Return a poller that nothing runs, whose worker has a place of two."""
    balancer = Balancer(2)
    wake = os.pipe()
    one = Poller([], balancer, balancer.join(), wake, Limits(3, 1, 1, 60, 60, 1000), None, None)
    one.start()
    yield one
    one.close()
    for end in wake:
        os.close(end)


def test_ping_never_queues_behind_predictions(model_with_script, tmp_path):
    """Four times as many callers as slots, no prediction ending: the rest is bounded."""
    gate = tmp_path / "gate"
    settings = {
        "GATE": str(gate),
        "SAGEMAKER_MODEL_SERVER_WORKERS": "2",
        "SKSERVE_THREADS": "2",
        "SKSERVE_QUEUE": "1",
    }
    with (
        serving(model_with_script(GATED), tmp_path / "log", **settings) as server,
        ThreadPoolExecutor(16) as callers,
    ):
        answers = [callers.submit(server.post, ROW) for _ in range(16)]
        time.sleep(0.5)
        pings = []
        while len(pings) < 60:
            began = time.perf_counter()
            assert server.ping() == 200
            pings.append(time.perf_counter() - began)
            time.sleep(0.05)
        gate.touch()
        statuses = [answer.result().status_code for answer in answers]

        assert sorted(pings)[len(pings) * 9 // 10] < 0.1
        assert max(pings) < 3  # some may meet a busy neighbour of this machine
        assert set(statuses) == {200, 503}
        assert statuses.count(200) <= 6  # two workers of two slots and one place to wait
        refused = next(one.result() for one in answers if one.result().status_code == 503)
        assert refused.headers["Retry-After"] == "1"
        assert refused.json()["error"]["code"] == "overloaded"


@pytest.mark.parametrize(
    "said",
    [b"", pytest.param(b"G", marks=pytest.mark.soak), b"GET /ping HTTP/1.1\r\nHost:", HEAD],
    ids=len,
)
def test_clients_that_never_finish_a_head_hold_no_thread(servers, said):
    server = servers("iris", SKSERVE_QUEUE="0", **ONE)
    slow = [connect(server) for _ in range(100)]
    for one in slow:
        one.sendall(said)
    time.sleep(0.3)

    began = time.perf_counter()
    assert server.ping() == 200
    assert server.post(ROW).json() == [0]
    assert time.perf_counter() - began < 10  # less than `STALL`

    busy = cpu_seconds(children(server)[0])
    time.sleep(1)
    assert cpu_seconds(children(server)[0]) - busy < 0.3, "the poller spins"
    if said:
        slow[0].sendall(rest(said))
        slow[0].settimeout(5)
        assert slow[0].recv(12) == b"HTTP/1.1 200"
    for one in slow:
        one.close()
    wait_until_ready(server)


def rest(said: bytes) -> bytes:
    """Return what makes a request of what was said so far."""
    if said == HEAD:
        return b"Content-Length: 15\r\n\r\n5.1,3.5,1.4,0.2"
    return b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n".removeprefix(said)


def test_requests_sent_all_at_once_are_answered_in_turn(servers):
    one = HEAD + b"Content-Length: 15\r\n\r\n5.1,3.5,1.4,0.2"
    with connect(servers("iris", **ONE)) as client:
        client.sendall(one * 3 + b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        client.settimeout(10)
        said = b""
        while part := client.recv(4096):
            said += part

    assert said.count(b"HTTP/1.1 200 OK") == 4
    assert said.count(b"[0]") == 3


def test_a_head_without_end_is_refused_without_a_thread(servers):
    server = servers("iris", **ONE)
    with connect(server) as client:
        client.settimeout(5)
        client.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\nX: " + b"x" * (70 << 10))
        said = b""
        while part := client.recv(4096):
            said += part
        assert said.startswith(b"HTTP/1.1 431 ")
        assert json.loads(said.split(b"\r\n\r\n")[1])["error"]["code"] == "head_too_large"
        assert server.ping() == 200


def test_a_head_that_cannot_end_is_refused_at_once(servers):
    server = servers("iris", **ONE)
    with connect(server) as client:
        client.settimeout(5)
        client.sendall(b"GET /ping HTTP/1.1\nHost: x\n\n")
        assert client.recv(12) == b"HTTP/1.1 400"


def test_a_cheap_request_in_pieces_is_answered(servers):
    one = HEAD + b"Content-Length: 15\r\n\r\n5.1,3.5,1.4,0.2"
    server = servers("iris", **ONE)
    with connect(server) as client:
        client.settimeout(10)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(10):
            for place in range(0, len(one), 40):
                client.sendall(one[place : place + 40])
                time.sleep(0.002)
            said = client.recv(4096)
            assert said.startswith(b"HTTP/1.1 200 OK")
            assert said.endswith(b"[0]"), "head and body come in one piece"


def test_an_answer_that_is_not_read_delays_no_other(servers):
    """Cheap requests sent by the thousand on one connection whose answers are left lying."""
    one, count = HEAD + b"Content-Length: 15\r\n\r\n5.1,3.5,1.4,0.2", 1500
    server = servers("iris", **ONE)
    with (
        connect(server) as client,
        ThreadPoolExecutor(1) as sender,
    ):
        for _ in range(20):
            assert server.post(ROW).status_code == 200  # known to be cheap now
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 15)
        client.settimeout(30)
        sent = sender.submit(client.sendall, one * count)
        time.sleep(0.5)
        began = time.perf_counter()
        assert server.ping() == 200
        assert server.post(ROW).json() == [0]
        assert time.perf_counter() - began < 10  # a poller that waited would do so for `STALL`

        said = b""
        while said.count(b"[0]") < count:
            said += client.recv(1 << 16)
        sent.result()
        assert said.count(b"HTTP/1.1 200 OK") == count


def test_idle_connections_make_room_for_new_ones(servers):
    """More than a worker holds, none of which says anything."""
    count = 1100
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, count + 1000), hard))
    try:
        server = servers("iris", SKSERVE_QUEUE="0", **ONE)
        idle = [connect(server) for _ in range(count)]
        began = time.monotonic()
        for _ in range(5):
            assert server.ping() == 200
            assert server.post(ROW).json() == [0]
        assert time.monotonic() - began < 10  # less than `STALL`, when they are given up

        idle[0].settimeout(5)
        assert idle[0].recv(1) == b"", "the one that has waited longest has to go"
        idle[-1].settimeout(5)
        idle[-1].sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle[-1].recv(12) == b"HTTP/1.1 200"
        for one in idle:
            one.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_worker_without_a_free_descriptor_goes_on_with_those_it_has(servers):
    server = servers("iris", **ONE)
    with connect(server) as client:
        worker = children(server)[0]
        client.settimeout(10)
        client.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
        used = len(list(Path(f"/proc/{worker}/fd").iterdir()))
        soft, hard = resource.prlimit(worker, resource.RLIMIT_NOFILE)
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (used + 10, hard))
        more = [connect(server) for _ in range(30)]
        time.sleep(0.2)

        busy = cpu_seconds(worker)
        client.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
        time.sleep(1)
        assert cpu_seconds(worker) - busy < 0.3, "the poller spins"
        for one in more:
            one.close()
        until(lambda: server.ping() == 200)
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (soft, hard))
        assert children(server) == [worker]


def test_what_the_poller_saw_of_a_connection_that_has_left_it_since_counts_for_nothing(poller):
    """It may see more of a client at the same moment in which it ends what that one sent before."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        poller._take(ours, ("", 0), ("", 0))
        client = poller._clients.get(ours.fileno())
        poller._clients.leave(client)
        theirs.sendall(b"GET /ping HTTP/1.1")
        poller.turn(0)

    assert poller.held == 1  # a thread has it
    assert ours.recv(100) == b"GET /ping HTTP/1.1", "read by no other"
    ours.close()


def test_a_client_that_does_not_leave_does_not_keep_others_out(poller):
    """One that closed after the others was once counted as connected still."""
    pairs = [socket.socketpair() for _ in range(3)]
    clients = []
    for ours, _ in pairs:
        ours.setblocking(False)
        poller._take(ours, ("", 0), ("", 0))
        clients.append(poller._clients.get(ours.fileno()))
        poller._linger(clients[-1])
    for client, (_, theirs) in zip(clients[1:], pairs[1:], strict=True):
        theirs.close()
        poller._readable(client)

    assert poller.held == 1
    pairs[0][1].close()
    poller._readable(clients[0])
    assert poller.held == 0


def test_a_thread_sends_what_the_kernel_does_not_take(poller):
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        poller._take(ours, ("", 0), ("", 0))
        client, body = poller._clients.get(ours.fileno()), bytes(range(256)) * 8192
        client.connection.feed(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
        poller._send(client, client.connection.request, Answer(200, body))
        assert client.group is None, "a thread has it"
        theirs.settimeout(10)
        got = b""
        while len(got) < len(body) or not got.endswith(body):
            got += theirs.recv(1 << 20)
        poller.turn(10)

        assert got.endswith(b"\r\n\r\n" + body)
        assert client.group is poller._clients.kept


def test_a_new_connection_is_answered_among_those_that_all_have_requests():
    asked: list[str] = []

    def handler(request: Request) -> Answer:
        asked.append(request.line.path)
        return Answer(200, b"")

    def ask(client: socket.socket, path: str) -> None:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    listener, balancer, wake = socket.create_server(("127.0.0.1", 0)), Balancer(1), os.pipe()
    limits, inline = Limits(100, 1, 1, 60, 60, 1000), SimpleNamespace(handler=lambda _: handler)
    poller = Poller([listener], balancer, balancer.join(), wake, limits, inline, None)
    balancer.warm(0)
    poller.start()
    callers = []
    for _ in range(40):
        callers.append(socket.create_connection(listener.getsockname()))
        ask(callers[-1], "/invocations")
        until(lambda: poller.turn(1) or len(asked) == len(callers))
    asked.clear()

    for caller in callers:
        ask(caller, "/invocations")
    callers.append(socket.create_connection(listener.getsockname()))
    ask(callers[-1], "/ping")
    poller.turn(1)

    assert asked.count("/invocations") == 40
    assert asked.index("/ping") < 40
    for one in [*callers, listener]:
        one.close()
    poller.close()
    for end in wake:
        os.close(end)


def test_a_call_is_refused_as_long_as_all_places_of_calls_are_taken():
    over = threading.Event()

    def application(_, start_response):
        over.wait(10)
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    inline = SimpleNamespace(
        handler=lambda _: None,
        is_call=lambda request: request.line.path == "/invocations",
        overloaded=lambda _: Answer(503, b"no"),
    )
    balancer, wake = Balancer(1), os.pipe()
    limits = Limits(9, 1, 3, 60, 60, 1000)
    poller = Poller([], balancer, balancer.join(), wake, limits, inline, application)
    balancer.warm(0)
    poller.start()
    pairs = [socket.socketpair() for _ in range(3)]

    def ask(client: socket.socket, path: str = "/invocations") -> None:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        poller.turn(1)

    for ours, theirs in pairs:
        ours.setblocking(False)
        theirs.settimeout(10)
        poller._take(ours, ("", 0), ("", 0))
    first, second, third = (theirs for _, theirs in pairs)
    ask(first)
    ask(second)
    ask(third, "/page")  # no call: a thread has it

    assert second.recv(1000).endswith(b"no")
    over.set()
    assert first.recv(1000).endswith(b"ok")
    assert third.recv(1000).endswith(b"ok")
    until(lambda: poller._threads.calls == 0)
    ask(second)
    assert second.recv(1000).endswith(b"ok"), "the first has left its place"
    poller.close()
    for end in (*wake, first, second, third):
        end.close() if isinstance(end, socket.socket) else os.close(end)


def test_the_standby_leaves_the_rest_where_the_poller_has_come_back(poller, monkeypatch):
    served: list[Client] = []
    monkeypatch.setattr(poller._standby, "polls", True)
    monkeypatch.setattr(poller._standby, "wanted", lambda _: not served)
    monkeypatch.setattr(poller._threads, "serve", lambda client, _: served.append(client))
    poller._inline = SimpleNamespace(handler=lambda _: None, is_call=lambda _: False)
    pairs = [socket.socketpair() for _ in range(3)]
    for ours, theirs in pairs:
        ours.setblocking(False)
        poller._take(ours, ("", 0), ("", 0))
        theirs.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")

    poller._stand_in(poller._clients.get(pairs[0][0].fileno()), 0)
    assert len(served) == 1
    poller._standby.polls = False
    poller.turn(0)
    assert len(served) == 2
    for one in (one for pair in pairs for one in pair):
        one.close()


def test_what_the_standby_has_done_meanwhile_is_past():
    """The poller learns of two requests and a wake-up at once; the first of them takes long."""

    def slow(_: Request) -> Answer:
        time.sleep(3 * AWAY)
        return Answer(200, b"here")

    over = threading.Event()

    def application(_, start_response):
        over.wait(10)
        start_response("200 OK", [("Content-Length", "8")])
        return [b"a thread"]

    inline = SimpleNamespace(handler=lambda _: slow, is_call=lambda _: False)
    balancer, wake = Balancer(1), os.pipe()
    limits = Limits(3, 1, 1, 60, 60, 1000)
    poller = Poller([], balancer, balancer.join(), wake, limits, inline, application)
    balancer.warm(0)
    poller.start()
    pairs = [socket.socketpair() for _ in range(2)]
    for ours, theirs in pairs:
        ours.setblocking(False)
        poller._take(ours, ("", 0), ("", 0))
        theirs.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")

    os.set_blocking(wake[0], False)
    os.write(wake[1], b"\0")

    poller.turn(1)
    over.set()

    bodies = {theirs.recv(1000).rpartition(b"\r\n\r\n")[2] for _, theirs in pairs}
    assert bodies == {b"here", b"a thread"}
    poller.close()
    for one in (one for pair in pairs for one in pair):
        one.close()
    for end in wake:
        os.close(end)

"""Requests answered in threads: bodies that are large, come in chunks, or never come."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.conftest import serving
from tests.servers import (
    GATED,
    HEAD,
    ONE,
    ROW,
    SLEEPY,
    answer_of,
    connect,
    until,
)


@pytest.mark.parametrize(("size", "status"), [(15, 200), (100_000, 503)])
def test_clients_that_never_finish_a_body_are_bounded_and_ping_goes_on(servers, size, status):
    """A small body is waited for without a thread, so it takes no place. The poller needs none."""
    server = servers("iris", SKSERVE_QUEUE="3", **ONE)
    large = json.dumps([[5.1, 3.5, 1.4, 0.2]] * 4000)  # for a thread, which needs a place
    slow = [connect(server) for _ in range(60)]
    for one in slow:
        one.sendall(HEAD + b"Content-Length: %d\r\n\r\n5" % size)
    time.sleep(0.5)

    began = time.perf_counter()
    assert server.ping() == 200
    assert time.perf_counter() - began < 10  # less than `STALL`
    assert server.post(ROW).status_code == 200
    assert server.post(large).status_code == status

    for one in slow:
        one.close()
    until(lambda: server.post(large).status_code == 200)


def test_a_body_that_trickles_in_gives_its_place_up(model_with_script, tmp_path):
    """Every place is taken by a body of which a byte comes a second: less than anyone needs."""
    settings = {**ONE, "SKSERVE_QUEUE": "3"}
    folder = model_with_script("def predict_fn(data, model): return model.predict(data)")
    with serving(folder, tmp_path / "log", **settings) as server:
        slow = [connect(server) for _ in range(8)]
        for one in slow[:4]:
            one.sendall(HEAD + b"Content-Length: 100000\r\n\r\n5")
        for one in slow[4:]:
            one.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n5\r\n")
        began, statuses = time.monotonic(), []
        while 200 not in statuses:
            assert time.monotonic() - began < 15, "no place came free"
            for one in slow:
                with contextlib.suppress(OSError):
                    one.sendall(b".")
            statuses.append(server.post(ROW).status_code)
            time.sleep(1)

        assert 503 in statuses, "there was always a place"
        slow[0].settimeout(10)
        assert slow[0].recv(12) in (b"HTTP/1.1 408", b"HTTP/1.1 503")
        for one in slow:
            one.close()


def test_a_chunked_body_is_read_and_cut_at_the_limit(models, tmp_path):
    def endless(parts: int):
        yield b"[[5.1, 3.5, 1.4, 0.2]"
        for _ in range(parts):
            yield b", [5.1, 3.5, 1.4, 0.2]" * 1000
        yield b"]"

    settings = {"SAGEMAKER_MODEL_SERVER_WORKERS": "1", "SAGEMAKER_MAX_PAYLOAD_IN_MB": "1"}
    with serving(models("iris"), tmp_path / "log", **settings) as server:
        url = server.url + "/invocations"

        assert len(requests.post(url, data=endless(2), timeout=10).json()) == 2001
        refused = requests.post(url, data=endless(100), timeout=10)

        assert refused.status_code == 413
        assert "more than 1,048,576 bytes" in refused.json()["error"]["message"]
        assert server.post(ROW).json() == [0]


def test_a_client_that_stops_half_way_is_given_up(servers):
    server = servers("iris", **ONE)
    with connect(server) as half:
        half.sendall(HEAD + b"Content-Length: 100\r\n\r\n[[")
        half.shutdown(socket.SHUT_WR)
        half.settimeout(10)
        said = half.recv(4096) + half.recv(4096)  # gunicorn sends the head by itself
    assert b"400" in said.split(b"\r\n")[0]
    assert b"before it was whole" in said
    assert server.post(ROW).json() == [0]


def test_malformed_chunks_are_the_callers_fault(servers):
    server = servers("iris", **ONE)
    with connect(server) as client:
        client.settimeout(5)
        client.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n[[")
        said = b""
        while part := client.recv(4096):
            said += part
        assert said.startswith(b"HTTP/1.1 400 ")
        assert b"not chunked as HTTP says" in said
    assert "Traceback" not in server.log.read_text()


def test_what_a_client_sends_behind_a_large_body_is_the_next_request(servers):
    """Also where the end of one and the start of the other come in one piece."""
    ping = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"
    server = servers("iris", **ONE)
    with connect(server) as client:
        client.settimeout(10)
        for rows in (4200, 20_000):  # a little more than the poller reads, and more
            body = b"5.1,3.5,1.4,0.2\n" * rows
            large = HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
            client.sendall(large + ping + large)
            answer, said = b"[%s]" % b",".join([b"0"] * rows), b""
            while said.count(answer) < 2 and (part := client.recv(1 << 16)):
                said += part
            heads = said.split(answer)
            assert [one.count(b"HTTP/1.1 200 OK") for one in heads] == [1, 2, 0]


def test_no_kept_connection_loses_a_request_under_overload(model_with_script, tmp_path):
    """A refusal comes before the body does: it is followed by a request, or says "close"."""
    gate = tmp_path / "gate"
    settings = {**ONE, "SKSERVE_QUEUE": "0", "GATE": str(gate)}
    body = b"5.1,3.5,1.4,0.2\n" * 6000  # more than is waited for without a place
    one = HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    with (
        serving(model_with_script(GATED), tmp_path / "log", **settings) as server,
        ThreadPoolExecutor(1) as callers,
    ):
        busy = callers.submit(server.post, ROW)
        time.sleep(0.5)
        client, refused = connect(server), 0
        for _ in range(8):
            client.settimeout(10)
            client.sendall(one[: len(one) // 2])
            time.sleep(0.1)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                client.sendall(one[len(one) // 2 :])
            said = answer_of(client)
            assert said.startswith(b"HTTP/1.1 503"), "a request was lost"
            refused += 1
            if b"Connection: close" in said:
                client.close()
                client = connect(server)
        client.close()
        gate.touch()
        assert refused == 8
        assert busy.result().json() == [0]


def test_a_client_that_waits_to_be_told_to_send_its_body_is_told(servers):
    """Told only if the body is read: a refusal comes instead, and ends the connection."""
    server = servers("iris", **ONE)
    head = HEAD + b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n"
    with connect(server) as client:
        client.settimeout(10)
        client.sendall(head % 15)
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"5.1,3.5,1.4,0.2")
        assert answer_of(client).startswith(b"HTTP/1.1 200")
    with connect(server) as client:
        client.settimeout(10)
        client.sendall(head % 10**9)
        said = answer_of(client)
        assert said.startswith(b"HTTP/1.1 413")
        assert b"Connection: close" in said


def test_who_waits_behind_a_hung_prediction_is_answered(model_with_script, tmp_path):
    settings = {**ONE, "SAGEMAKER_MODEL_SERVER_TIMEOUT": "2"}
    folder = model_with_script(SLEEPY.format(seconds=60))
    with (
        serving(folder, tmp_path / "log", **settings) as server,
        ThreadPoolExecutor(4) as callers,
    ):
        stuck = callers.submit(server.post, ROW)
        time.sleep(1)
        waiting = [callers.submit(server.post, ROW) for _ in range(3)]

        assert stuck.result().status_code == 504
        for one in waiting:
            assert one.result().status_code == 503
            assert one.result().headers["Retry-After"] == "1"
            assert one.result().json()["error"]["code"] == "overloaded"

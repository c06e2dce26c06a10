"""The output of one of many models, in the log of the server."""

from __future__ import annotations

import os

from skserve.multi_model.log_capture import LogCapture


def test_output_that_was_thrown_away_is_said_though_nothing_follows(monkeypatch, capfdbinary):
    monkeypatch.setattr("skserve.multi_model.log_capture.RATE", 0)  # so that time says nothing
    read, write = os.pipe()
    output = LogCapture(read, "m", "text")
    for _ in range(100):
        os.write(write, b"x" * 49_999 + b"\n")
        output.forward()
    assert b"dropped" not in capfdbinary.readouterr().err  # it may go on
    assert output.due is not None
    output.keep_time(output.due)

    (line,) = capfdbinary.readouterr().err.splitlines()
    assert line.startswith(b"[m] 4,000,000 bytes of output dropped")
    assert output.due is None
    os.close(write)
    output.close()
    assert capfdbinary.readouterr().err == b""


def test_output_that_never_ends_is_not_waited_for(capfdbinary):
    LogCapture(os.open("/dev/zero", os.O_RDONLY), "m", "text").close()
    assert len(capfdbinary.readouterr().err) < 2 << 20

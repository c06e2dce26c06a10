"""What is counted in shared memory: as a whole or not at all, whatever ends a process when."""

from __future__ import annotations

import mmap
import os
import signal
import time
from bisect import bisect_left
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skserve import region
from skserve.region import NO_MODEL, RECORDS, SIZE, Region
from skserve.series import BUCKETS, FAMILIES, STAGES, STATUSES
from skserve.totals import Totals

BY_NAME = {one.name: one for one in FAMILIES}
ONE = (200, NO_MODEL, 2, 1, 10, 20, [1e-5, 0.0, 2e-5, 1e-5, 6e-5])

REQUESTS = st.lists(
    st.tuples(
        st.sampled_from([200, 400, 404, 418, 503]),
        st.sampled_from([NO_MODEL, 0, 3, 50]),
        st.integers(0, 1000),
        st.integers(0, 3),
        st.integers(0, 1 << 40),
        st.integers(0, 1 << 40),
        st.lists(
            st.sampled_from([0.0, *BUCKETS, 7e-5, 0.3, 61.0]),
            min_size=len(STAGES) - 1,
            max_size=len(STAGES) - 1,
        ),
        st.floats(1e-6, 100),
    ),
    max_size=20,
)


def totals(counted: Region) -> Totals:
    return Totals([counted.totals()])


def answered(found: Totals) -> dict[str, float]:
    """Return how many requests there are, by each of the numbers that say so."""
    seconds = BY_NAME["skserve_request_seconds"]
    by_status = sum(found.of(BY_NAME["skserve_requests"], one) for one in STATUSES)
    return {
        "status": by_status,
        "rows": found.of(BY_NAME["skserve_rows"]) / 2,
        "predictions": found.of(BY_NAME["skserve_predictions"]),
        "bytes in": found.of(BY_NAME["skserve_body_bytes"], "in") / 10,
        "bytes out": found.of(BY_NAME["skserve_body_bytes"], "out") / 20,
        "total": sum(found.histogram(seconds, "total")[0]),
        "decode": sum(found.histogram(seconds, "decode")[0]),
    }


@given(REQUESTS, st.integers(0, 3 * RECORDS), st.integers(0, 2))
def test_every_request_is_counted_wherever_the_ring_is_full(asked, before, others):
    memory = memoryview(bytearray(SIZE))
    counted = Region(memory)
    for _ in range(before):
        counted.count(*ONE)
    for at, (*facts, stages, total) in enumerate(asked):
        if at % 3 < others:  # another process goes on where this one ended
            counted = Region(memory)
        counted.count(*facts, [*stages, total])
    found = totals(counted)

    statuses = Counter(str(one[0]) if str(one[0]) in STATUSES else "other" for one in asked)
    statuses["200"] += before
    family = BY_NAME["skserve_requests"]
    assert {one: found.of(family, one) for one in statuses} == statuses
    for name, label, at in [
        ("skserve_rows", "", 2),
        ("skserve_predictions", "", 3),
        ("skserve_body_bytes", "in", 4),
        ("skserve_body_bytes", "out", 5),
    ]:
        said = before * ONE[at] + sum(one[at] for one in asked)
        assert found.of(BY_NAME[name], label) == said
    for at, stage in enumerate(STAGES):
        took = [[*one[6], one[7]][at] for one in asked] + [ONE[6][at]] * before
        took = [one for one in took if one]
        buckets, seconds = found.histogram(BY_NAME["skserve_request_seconds"], stage)
        in_buckets = Counter(bisect_left(BUCKETS, one) for one in took)
        assert buckets == [in_buckets[bucket] for bucket in range(len(buckets))]
        assert seconds == pytest.approx(sum(took))
    for place in (0, 3, 50):
        mine = [one for one in asked if one[1] == place]
        errors, took = sum(one[0] >= 400 for one in mine), sum(one[7] for one in mine)
        assert found.model(place) == [len(mine), errors, pytest.approx(took)]


@pytest.mark.parametrize("before", [0, 1, RECORDS - 1, RECORDS, 2 * RECORDS - 1])
@pytest.mark.parametrize("fields", range(12))
def test_a_record_that_is_not_written_to_its_end_is_not_counted(before, fields):
    memory = memoryview(bytearray(SIZE))
    counted = Region(memory)
    for _ in range(before):
        counted.count(*ONE)
    if before == RECORDS:  # the ring was full: that is added up first
        counted._add_up()
    place = SIZE - RECORDS * region._SIZE + before % RECORDS * region._SIZE
    whole = region._RECORD.pack(404, 7, 9, 9, 9, 9, 1.0, 1.0, 1.0, 1.0, 1.0, before + 1)
    memory[place : place + 8 * fields] = whole[: 8 * fields]

    after = Region(memory)
    assert set(answered(totals(after)).values()) == {before}
    after.count(*ONE)
    assert set(answered(totals(after)).values()) == {before + 1}
    assert after.unanswered == 0


def test_a_process_that_is_killed_leaves_each_request_whole():
    memory = memoryview(mmap.mmap(-1, SIZE + 8))
    said = memory[SIZE:].cast("q")  # how many requests the process says it has counted
    for at in range(60):
        before = said[0]
        if (child := os.fork()) == 0:
            counted = Region(memory[:SIZE])
            while True:
                counted.began()
                counted.count(*ONE)
                said[0] += 1
        while said[0] == before:
            time.sleep(1e-4)
        time.sleep(at % 7 * 1e-4)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)

        counts = set(answered(totals(Region(memory[:SIZE]))).values())
        assert len(counts) == 1
        # The process may be ended before it says so; the next one goes on from there.
        assert counts <= {said[0], said[0] + 1}
        said[0] = int(counts.pop())


def test_a_reader_sees_each_request_whole_and_no_number_falls():
    memory = memoryview(mmap.mmap(-1, SIZE))
    reader = Region(memory)
    if (child := os.fork()) == 0:
        counted = Region(memory)
        while True:
            counted.count(*ONE)
    try:
        before, looks, deadline = 0.0, 0, time.monotonic() + 30
        while (before < 20 * RECORDS or looks < 500) and time.monotonic() < deadline:
            counts = set(answered(totals(reader)).values())
            assert len(counts) == 1
            assert (now := counts.pop()) >= before
            before, looks = now, looks + 1
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert before >= 20 * RECORDS


def test_a_reader_that_is_overtaken_reads_again():
    memory = memoryview(bytearray(SIZE))
    counted, reader = Region(memory), Region(memory)
    overtaken = iter([0, 2 * RECORDS + 1])  # after it has seen which copy of the sums counts

    class Ring:
        def __bytes__(self) -> bytes:
            for _ in range(next(overtaken, 0)):
                counted.count(*ONE)
            return bytes(counted._ring)

    counted.count(*ONE)
    reader._ring = Ring()
    assert set(answered(totals(reader)).values()) == {2 * RECORDS + 2}

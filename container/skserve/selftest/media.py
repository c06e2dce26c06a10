"""Checks of formats and rows: every way in and out gives one answer, the model's own."""

from __future__ import annotations

import json

from skserve.formats.media_types import CSV, JSON, JSON_LINES, NDJSON
from skserve.selftest import alone, answers, tables
from skserve.selftest.bodies import Form, forms, records, write_json
from skserve.selftest.tables import Table
from skserve.selftest.verdict import Verdict, failed, passed, warned
from skserve.selftest.walk import Walk

# Every answer can be written in these; the others may refuse texts, or parts of unequal shape.
_ALWAYS = {JSON, CSV, JSON_LINES, NDJSON}


def rows(walk: Walk) -> Verdict:
    """Find rows that the model answers: the user's, or else made ones, or else its example."""
    given = walk.given.rows
    if given:
        try:
            walk.sample = given.read_bytes(), tables.media_type(given)
            found = tables.read(given, walk.about)
        except (OSError, ValueError) as error:
            return failed(f"The rows cannot be read: {error}.", "Give .json, .csv, .jsonl or .npy.")
        answer = walk.post(*walk.sample, accept=walk.sample[1] if walk.writes_itself else JSON)
        if answer.status != 200:
            walk.sample = None
            return failed(f"The given rows are answered {answer.said}.", "Correct the file.")
        if found is not None and not walk.reads_itself and _taken(walk, found):
            return passed(f"{len(found.rows)} rows of {given.name} are answered.")
        return passed(f"{given.name} is answered, as it is.")
    return _made(walk)


def _made(walk: Walk) -> Verdict:
    refusals = []
    for table in () if walk.reads_itself else tables.made(walk.about):
        if refusal := _refusal(walk, table):
            refusals.append(refusal)
            continue
        walk.sample = write_json(table), JSON
        return passed(f"{len(table.rows)} rows made of what the model says of itself are answered.")
    example = walk.about["example"]
    way_out = "Give rows that it takes: --rows FILE."
    if example is None:
        reason = "The script reads bodies itself" if walk.reads_itself else "The model says nothing"
        return warned(f"{reason}, so no rows could be made.", way_out)
    body = json.dumps(example["body"]).encode()
    answer = walk.post(body, example["content_type"])
    if answer.status != 200:
        return failed(f"The model's own example is answered {answer.said}.", way_out)
    walk.sample = body, example["content_type"]
    if refusals:
        return warned(f"Only its example is answered; made rows: {refusals[0]}", way_out)
    return warned("Only its example is known, one body.", way_out)


def _taken(walk: Walk, table: Table) -> bool:
    return not _refusal(walk, table)


def _refusal(walk: Walk, table: Table) -> str:
    """Take `table` for the checks if the model answers it, else say why not."""
    try:
        cells = walk.answer(table)
    except ValueError as error:
        return str(error)
    if len(cells) != len(table.rows):
        return f"{len(cells)} answers for {len(table.rows)} rows"
    walk.table, walk.answers = table, cells
    return ""


def formats_in(walk: Walk) -> Verdict | None:
    if walk.table is None:
        return None
    seen, refused = [], []
    for form in forms(walk.table, walk.about["content_types"]):
        if form.optional and walk.script:
            continue  # sparse rows, which the script need not have been written for
        wrong = _wrong(walk, form)
        if wrong == _REFUSED:
            refused.append(form.name)
        elif wrong:
            return failed(
                f"{form.name}: {wrong}.", "The decoder of that format is at fault: report it."
            )
        else:
            seen.append(form.name)
    also = f" Refused: {', '.join(refused)}." if refused else ""
    return passed(f"{len(seen)} forms of the same rows have equal answers.{also}")


_REFUSED = "refused"


def _wrong(walk: Walk, form: Form) -> str:
    """Say what is wrong with the answer to the table in one form."""
    assert walk.table is not None
    answer = walk.post(form.write(walk.table), form.content_type)
    if form.optional and answer.status == 400:
        return _REFUSED
    return answers.wrong(answer, walk.answers)


def formats_out(walk: Walk) -> Verdict | None:
    if walk.table is None or walk.writes_itself:
        return None
    body, seen, refused = write_json(walk.table), [], []
    for accept in walk.about["accept"]:
        answer = walk.post(body, accept=accept)
        if answer.status == 406 and accept not in _ALWAYS:
            refused.append(accept)
            continue
        wrong = answers.wrong(answer, walk.answers)
        if not wrong and answer.media_type != accept:
            wrong = f"the answer is {answer.media_type}"
        if wrong:
            return failed(
                f"{accept}: {wrong}.", "The encoder of that format is at fault: report it."
            )
        seen.append(accept)
    also = f" Refused: {', '.join(refused)}." if refused else ""
    return passed(f"{len(seen)} formats hold the same answers.{also}")


def one_beside_many(walk: Walk) -> Verdict | None:
    table = walk.table
    if table is None:
        return None
    for at in range(len(table.rows)):
        try:
            wrong = answers.difference(walk.answer(table.at(at)), walk.answers[at : at + 1])
        except ValueError as error:
            wrong = f"answered {error}"
        if wrong:
            return failed(
                f"Row {at + 1} alone is answered otherwise than among {len(table.rows)}: {wrong}.",
                "A step looks at the whole body, as a scaler does that is fitted in transform; "
                "change it, or send one row at a time with SKSERVE_BATCHING=off.",
            )
    return passed(f"Each of {len(table.rows)} rows is answered alone as among the others.")


def column_order(walk: Walk) -> Verdict | None:
    """Names decide, not places: the same objects, with their keys the other way round."""
    table = walk.table
    if table is None or table.names is None or len(table.names) < 2:
        return None
    turned = [dict(reversed(record.items())) for record in records(table)]
    answer = walk.post(json.dumps(turned).encode())
    if wrong := answers.wrong(answer, walk.answers):
        return failed(
            f"Columns in another order are answered otherwise: {wrong}.",
            "Names are not matched to the model's: send columns in its order, and report it.",
        )
    return passed("Columns in another order have the same answers.")


def expected(walk: Walk) -> Verdict | None:
    path = walk.given.expect
    if path is None or walk.sample is None:
        return None
    try:
        kind = tables.media_type(path)
        wanted = path.read_bytes()
    except (OSError, ValueError) as error:
        return failed(f"The expected answers cannot be read: {error}.", "Give .json or .csv.")
    headers = {"Content-Type": walk.sample[1], "Accept": kind}
    answer = walk.client.ask("POST", "/invocations", walk.sample[0], headers)
    if answer.status == 200 and answer.body == wanted:
        return passed(f"The answer is {path.name}, byte by byte.")
    try:
        wrong = answers.wrong(answer, answers.read(kind, wanted))
    except ValueError as error:
        return failed(f"{path.name} cannot be read: {error}.", "Give .json or .csv.")
    if wrong:
        return failed(f"The answers are not those of {path.name}: {wrong}.", "Which are right?")
    return passed(f"The answers are those of {path.name}.")


def model_alone(walk: Walk) -> Verdict | None:
    """Hold the answers against the estimator's own. Run when the server has ended."""
    asked = None if walk.reads_itself or walk.predicts_itself or walk.writes_itself else walk.table
    types = [column["type"] for column in walk.about["columns"]]
    walk.alone = alone.ask(walk.config, asked, walk.method, types)
    if asked is None:
        return None
    if walk.alone.cells is None:
        return warned(
            f"The model alone does not answer the rows: {walk.alone.failure}.",
            "Compare some answers yourself: --rows FILE --expect FILE.",
        )
    if wrong := answers.difference(walk.answers, walk.alone.cells):
        return failed(
            f"The answers are not those of {walk.method} itself: {wrong}.",
            "Set SKSERVE_ACCELERATE=off and run this again: where it still fails, a decoder is at "
            "fault. Report it.",
        )
    return passed(f"{len(walk.answers)} rows are answered as by {walk.method} itself.")


def load_by_phase(walk: Walk) -> Verdict | None:
    """Say where the time of the start goes, measured in the process that `model_alone` ran."""
    if walk.alone is None or not walk.alone.phases:
        return None
    parts = [f"{name} {seconds:.2f} s" for name, seconds in walk.alone.phases.items()]
    return passed(f"{', '.join(parts)}; of the server's start {walk.ready_after:.2f} s.")

// The form of editable rows: pasting, predicting, and where answers and errors are shown.

import { cellOfValue, placeOf } from "./cells.js";
import { shown } from "./answers.js";
import { Rows } from "./rows.js";
import { ask, parse } from "./server.js";
import { byId, count, onceAFrame, onSubmit, say } from "./dom.js";

const WRITES = ["predict_fn", "output_fn", "transform_fn"];

/** Offer rows of `columns`; `tell` is told the call that would be sent. */
export function offerRows(model, columns, path, tell) {
  const method = byId("method");
  method.replaceChildren(...model.methods.map((one) => new Option(one)));
  method.value = model.method;
  const own = WRITES.some((hook) => model.script.includes(hook)); // then the script decides what is answered
  byId("ask").hidden = own || model.methods.length < 2;
  const bodyOf = (asked) => {
    const extra = own || asked === model.method ? "" : `, "method": ${JSON.stringify(asked)}`;
    return `{"instances": ${rows.json()}${extra}}`;
  };
  const changed = onceAFrame(() => tell({ type: "application/json", accept: "application/json", body: bodyOf(method.value) }));
  const example = firstRow(model.example?.body ?? []);
  const first = columns.map((column, at) => cellOfValue(column, example?.[Array.isArray(example) ? at : column.name] ?? null));
  const rows = new Rows(columns, first, changed);
  const shares = !own && model.classes && model.methods.includes("predict_proba");
  method.onchange = changed;
  byId("add").onclick = () => rows.add();
  byId("reset").onclick = () => {
    rows.reset();
    say("outcome", "");
  };
  byId("form").onpaste = (event) => paste(event, rows);
  onSubmit(byId("form"), () => predict({ rows, classes: model.classes, shares, path, method: method.value, bodyOf }));
  byId("try").hidden = false;
}

/** The first row of an example. */
function firstRow(body) {
  const rows = body.instances ?? body.inputs ?? body.dataframe_records ?? body.dataframe_split?.data ?? body.data ?? body;
  const [row] = Array.isArray(rows) ? rows : [rows];
  return typeof row === "object" ? row : [row];
}

function paste(event, rows) {
  const text = event.clipboardData.getData("text/plain");
  if (!/[\t\n]/.test(text.trimEnd())) return; // one cell: the browser knows how
  event.preventDefault();
  const { row = 0, column = 0 } = event.target.dataset;
  say("outcome", rows.paste(text, Number(row), Number(column)));
}

let latest = 0;

async function predict({ rows, classes, shares, path, method, bodyOf }) {
  const own = (latest += 1);
  const post = (asked) => ask("POST", path, { type: "application/json", body: bodyOf(asked) });
  rows.clear();
  say("outcome", "Waiting for the answer ...");
  const answer = await post(method);
  const likely = shares && method === "predict" && !answer.error ? answersOf((await post("predict_proba")).text) : [];
  if (own !== latest) return; // another was asked for meanwhile
  if (answer.error) return showError(answer, rows);
  const answers = answersOf(answer.text);
  const each = Array.isArray(answers) && answers.length === rows.values.length;
  (each ? answers : [answers]).forEach((one, row) => rows.answer(row, shown(one, method, classes, likely?.[row])));
  say("outcome", `${count(rows.values.length, "row")} answered in ${(1000 * answer.seconds).toFixed(1)} ms.`);
}

/** The answers of the rows, in an envelope or not; what is no JSON is shown as it is. */
function answersOf(text) {
  try {
    const said = parse(text);
    return said?.predictions ?? said;
  } catch {
    return text;
  }
}

function showError({ status, error }, rows) {
  say("outcome", `${status || "Failed"}: ${error.message} ${error.hint}`, true);
  const place = placeOf(error.message, rows.columns);
  if (place) rows.fail(place, error.message);
}

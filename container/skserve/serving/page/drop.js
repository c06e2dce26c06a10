// The panel of a dropped file: start, progress, cancel, skip a bad row, save.

import { byId, count, onFile, save, say, sizeOf } from "./dom.js";
import { FileRun } from "./file.js";

let stop = new AbortController();

export function offerFile(columns, path) {
  byId("file").hidden = false;
  byId("run").hidden = true;
  onFile(byId("chosen"), byId("file"), (file) => open(new FileRun(file, columns, path, byId("method").value)));
}

/** Answer no more of a file: another model is opened. */
export const leave = () => stop.abort();

async function open(run) {
  stop.abort();
  stop = new AbortController();
  const { name } = run.file;
  byId("run").hidden = false;
  say("run-name", name);
  say("run-size", sizeOf(run.file));
  byId("run-start").onclick = () => goOn(run);
  byId("run-cancel").onclick = () => stop.abort();
  byId("run-skip").onclick = () => {
    run.skip();
    goOn(run);
  };
  byId("run-save").onclick = () => save(name.replace(/(\.\w+)?$/, "-answers.csv"), run.parts(), "text/csv");
  byId("run-header").disabled = false;
  try {
    byId("run-header").checked = await run.open();
    show(run, run.pending.length ? "" : "The file is empty.", { start: run.pending.length });
  } catch (error) {
    show(run, reason(error), {});
  }
}

const reason = (error) => (error instanceof TypeError ? "The file is not UTF-8: save it as UTF-8 first." : error.message);

async function goOn(run) {
  stop = new AbortController();
  const { signal } = stop;
  run.takeHeader(byId("run-header").checked);
  byId("run-header").disabled = true;
  const progress = () => signal.aborted || show(run, "", { cancel: true });
  progress();
  try {
    const failed = await run.go(signal, progress);
    const then = { start: failed && !failed.row, skip: failed?.row, save: run.done.rows };
    show(run, failed ? `${failed.message} ${failed.hint}` : "", then);
  } catch (error) {
    const cancelled = signal.aborted;
    if (signal === stop.signal) show(run, cancelled ? "Cancelled." : reason(error), { start: cancelled, save: run.done.rows });
  }
}

/** Show how far a run is, what went wrong, and the buttons that make sense now. */
function show(run, wrong, visible) {
  const { rows, skipped } = run.done;
  const said = [wrong, rows || run.ended ? `${run.ended ? "All " : ""}${count(rows, "row")} answered.` : ""];
  if (skipped) said.push(`${count(skipped, "row")} skipped.`);
  byId("run-progress").value = run.share;
  say("run-outcome", said.join(" ").trim(), wrong && wrong !== "Cancelled.");
  say("run-start", byId("run-header").disabled ? "Go on" : "Predict");
  const buttons = [...byId("run").querySelectorAll("button")];
  const lost = buttons.includes(document.activeElement);
  for (const one of buttons) one.hidden = !visible[one.id.slice(4)];
  if (lost) buttons.find((one) => !one.hidden)?.focus(); // the keyboard goes on from there
}

// The panel of a dropped file: start, progress, cancel, skip a bad row, save.

import { byId, count, save } from "./dom.js";
import { FileRun } from "./file.js";

let stop = new AbortController();

export function offerFile(model, columns, path) {
  const panel = byId("file");
  const take = (file) => file && open(new FileRun(file, columns, path, byId("method").value));
  stop.abort();
  panel.hidden = false;
  byId("run").hidden = true;
  byId("chosen").onchange = ({ target }) => {
    take(target.files[0]);
    target.value = "";
  };
  document.ondragover = (event) => {
    event.preventDefault();
    panel.classList.add("over");
  };
  document.ondragleave = (event) => event.relatedTarget ?? panel.classList.remove("over");
  document.ondrop = (event) => {
    event.preventDefault();
    panel.classList.remove("over");
    take(event.dataTransfer.files[0]);
  };
}

async function open(run) {
  stop.abort();
  stop = new AbortController();
  const { name, size } = run.file;
  byId("run").hidden = false;
  byId("run-name").textContent = name;
  byId("run-size").textContent = `${(size / 2 ** 20).toFixed(1)} MiB`;
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
  byId("run-outcome").textContent = said.join(" ").trim();
  byId("run-outcome").className = wrong && wrong !== "Cancelled." ? "error" : "";
  byId("run-start").textContent = byId("run-header").disabled ? "Go on" : "Predict";
  const names = ["start", "cancel", "skip", "save"].map((name) => `run-${name}`);
  const lost = names.includes(document.activeElement.id);
  for (const id of names) byId(id).hidden = !visible[id.slice(4)];
  if (lost) byId(names.find((id) => !byId(id).hidden))?.focus(); // the keyboard goes on from there
}

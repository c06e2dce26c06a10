// What the model is: its title, its steps as a diagram, its columns, its versions.

import { byId, count, element, named, say } from "./dom.js";
import { stepOf } from "./diagram.js";
import { hintOf, spelled } from "./cells.js";

const COLUMNS = 100;
const VALUES = 12;

export function describe(model, columns, name) {
  const kind = lastOf(model.steps ?? { class: model.model });
  byId("title").replaceChildren(name === null ? kind : named(name));
  document.title = byId("title").textContent;
  say("summary", `${name === null ? "" : `${kind}. `}${summaryOf(model)}`);
  byId("diagram").replaceChildren(...(model.steps ? [stepOf(model.steps)] : []));
  byId("steps").hidden = !model.steps;
  listColumns(model, columns);
  const versions = Object.entries(model.versions ?? {}).filter(([, version]) => version);
  say("versions", versions.map(([what, version]) => `${what.replaceAll("_", " ")} ${version}`).join(", "));
}

/** The class of the step that answers. */
const lastOf = ({ class: kind, flow, steps }) => (flow === "series" ? lastOf(steps.at(-1)) : kind);

function summaryOf(model) {
  const taken = model.input === "list of texts" ? "a text" : model.n_features ? count(model.n_features, "column") : "a body";
  const classes = model.classes?.length ? `, ${count(model.classes.length, "class", "classes")}` : "";
  const script = model.script.length ? ` A script has ${model.script.join(", ")}.` : "";
  return `Answers ${model.method} of ${taken}${classes}.${script}`;
}

function listColumns(model, columns) {
  byId("columns").hidden = model.input === "list of texts" || !columns.length;
  byId("columns-list").replaceChildren(...columns.slice(0, COLUMNS).map((column) => {
    const known = column.values.slice(0, VALUES).flatMap((value) => [named(spelled(value)), " "]);
    if (column.values.length > VALUES) known.push(`and ${column.values.length - VALUES} more`);
    const source = ["model", "not said"].includes(column.source) ? "" : `, by ${column.source}`;
    return element("li", {}, named(column.label), " ", element("span", { className: "hint" }, hintOf(column) + source),
      ...(known.length ? [element("p", { className: "takes" }, ...known)] : []));
  }));
  const more = columns.length - COLUMNS;
  say("columns-rest", more > 0 ? `and ${count(more, "more column")}; the JSON of this address has all.` : "");
}

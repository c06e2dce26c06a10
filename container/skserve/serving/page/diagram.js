// The steps of a model, drawn from their names and parameters: series follow a line in colour.

import { element, named } from "./dom.js";

/** One step: its class and name, what differs from scikit-learn's defaults, the steps inside. */
export function stepOf({ class: kind, name, parameters = {}, columns, steps, flow }) {
  const box = element("div", { className: "step" }, element("strong", {}, kind));
  if (name && name !== kind.toLowerCase()) box.append(" ", named(name));
  if (columns) box.append(element("p", { className: "takes" }, ...columns.flatMap((one) => [named(one), " "])));
  const set = Object.entries(parameters);
  if (set.length) {
    box.append(element("dl", {}, ...set.map(([key, value]) =>
      element("div", {}, element("dt", {}, named(key)), element("dd", {}, named(value))))));
  }
  const item = element("li", {}, box);
  if (steps) item.append(element("ul", { className: flow }, ...steps.map(stepOf)));
  return item;
}

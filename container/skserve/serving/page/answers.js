// Answers to look at: a value, classes as bars, neighbours, a vector, or JSON.

import { element, named } from "./dom.js";
import { short, spelled } from "./cells.js";
import { write } from "./server.js";

const SHOWN = 10;

/** Show the answer to one row; `shares` are the probabilities of `classes`, if known. */
export function shown(answer, method, classes, shares) {
  if (method === "predict_proba" && isShares(answer, classes)) return bars(classes, answer);
  if (isNeighbours(answer)) return neighbours(answer);
  const value = isScalar(answer) ? single(answer) : Array.isArray(answer) && answer.every(isScalar) ? vector(answer) : json(answer);
  return isShares(shares, classes) ? element("div", {}, value, bars(classes, shares)) : value;
}

const isScalar = (value) => value === null || typeof value !== "object";

const isShares = (value, classes) =>
  Array.isArray(value) && value.length === classes?.length && value.every((one) => typeof one === "number");

const isNeighbours = (value) =>
  Array.isArray(value?.distances) && Array.isArray(value.indices) && value.distances.length === value.indices.length;

function single(value) {
  return element("p", { className: "value", title: write(value) }, value === null ? "missing (NaN)" : textOf(value));
}

function textOf(value) {
  return typeof value === "number" ? short(value) : named(spelled(value));
}

function bars(classes, shares) {
  const order = shares.map((share, at) => at).sort((one, other) => shares[other] - shares[one]);
  const shown = order.slice(0, SHOWN).map((at) => bar(named(spelled(classes[at])), shares[at], percent(shares[at])));
  return listed("bars", shown, order.length - SHOWN);
}

const percent = (share) => `${(100 * share).toFixed(share > 0.0995 || share === 0 ? 1 : 2)} %`;

function bar(label, share, said) {
  const filled = element("span", { className: "filled" });
  filled.style.width = `${100 * Math.max(0, Math.min(1, share))}%`;
  return element("li", {}, element("span", { className: "label" }, label),
    element("span", { className: "track" }, filled), element("span", { className: "said" }, said));
}

function neighbours({ distances, indices }) {
  const farthest = Math.max(...distances) || 1;
  const rows = indices.slice(0, SHOWN).map((index, at) => bar(`row ${index}`, distances[at] / farthest, short(distances[at])));
  return listed("bars", rows, indices.length - SHOWN);
}

function vector(values) {
  const cells = values.slice(0, 2 * SHOWN).map((value) => element("li", { title: write(value) }, value === null ? "NaN" : textOf(value)));
  return listed("vector", cells, values.length - 2 * SHOWN);
}

function listed(className, items, more) {
  const list = element("ul", { className }, ...items);
  if (more > 0) list.append(element("li", { className: "hint" }, `and ${more.toLocaleString("en")} more`));
  return list;
}

function json(value) {
  return element("pre", { tabIndex: 0, ariaLabel: "Answer" }, write(value));
}

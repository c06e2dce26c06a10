// The editable rows: one field a column, made of what the model knows of it.

import { byId, count, element, named, onceAFrame, say } from "./dom.js";
import { cellOf, hintOf, jsonOf, textOf } from "./cells.js";
import { blockOf, headerOf } from "./delimited.js";

// Fields of a row that are shown at once, choices in a list, and rows to edit.
const FIELDS = 60;
const CHOICES = 200;
const ROWS = 100;

export class Rows {
  /** `first` are the cells to begin with; `changed` is called after each change. */
  constructor(columns, first, changed) {
    Object.assign(this, { columns, first, changed });
    this.shown = columns;
    this.from = 0;
    this.values = [[...first]];
    this.cards = [];
    this.wirePager();
    this.draw();
  }

  /** The rows as JSON. */
  json() {
    const lines = this.values.map((row) => row.map((cell, at) => jsonOf(this.columns[at], cell)));
    return `[${lines.map((cells) => (this.columns[0].alone ? cells[0] : `[${cells.join(", ")}]`)).join(", ")}]`;
  }

  add() {
    this.values.push([...this.values.at(-1)]);
    this.draw();
    this.focus(this.values.length - 1);
  }

  remove(row) {
    this.values.splice(row, 1);
    this.draw();
    this.focus(Math.min(row, this.values.length - 1));
  }

  focus(row) {
    this.cards[row].querySelector("[data-column]")?.focus();
  }

  reset() {
    this.values = [[...this.first]];
    this.draw();
  }

  /** Put a block of cells into the rows from `row`, `column` on. */
  paste(text, row, column) {
    const block = blockOf(text, this.columns.length);
    const header = headerOf(block[0], this.columns);
    if (header) block.shift();
    if (row + block.length > ROWS) return `The page edits ${ROWS} rows; drop the rows as a CSV file below.`;
    const widest = Math.max(0, ...block.map((cells) => cells.length));
    const all = this.columns.map((one) => one.at);
    const places = header ?? (widest === all.length ? all : all.slice(column));
    if (widest > places.length) return `The rows have ${count(widest, "cell")}; there are columns for ${places.length}.`;
    block.forEach((cells, at) => {
      const target = (this.values[row + at] ??= this.first.map(() => ""));
      cells.forEach((cell, place) => (target[places[place]] = cellOf(this.columns[places[place]], cell)));
    });
    this.draw();
    return `${count(block.length, "row")} pasted.`;
  }

  /** Show the columns that are asked for, and of them those from `from` on. */
  find(text) {
    const wanted = text.trim().toLowerCase();
    this.shown = this.columns.filter((one) => one.label.toLowerCase().includes(wanted));
    this.turn(0);
  }

  turn(from) {
    this.from = Math.max(0, Math.min(from, this.shown.length - 1));
    this.draw();
  }

  wirePager() {
    const find = byId("find");
    byId("pager").hidden = this.columns.length <= FIELDS;
    find.value = "";
    find.oninput = onceAFrame(() => this.find(find.value));
    byId("earlier").onclick = () => this.turn(this.from - FIELDS);
    byId("later").onclick = () => this.turn(this.from + FIELDS);
  }

  draw() {
    const visible = this.shown.slice(this.from, this.from + FIELDS);
    const place = `${this.from + 1} to ${this.from + visible.length} of ${count(this.shown.length, "column")}`;
    say("shown", visible.length ? place : "No column has that name.");
    byId("earlier").disabled = this.from === 0;
    byId("later").disabled = this.from + FIELDS >= this.shown.length;
    byId("add").disabled = this.values.length >= ROWS;
    this.cards = this.values.map((cells, row) => this.card(row, cells, visible));
    byId("rows").replaceChildren(...this.cards);
    this.changed();
  }

  card(row, cells, visible) {
    const fields = element("div", { className: "fields" });
    fields.append(...visible.map((column) => this.field(row, column, cells)));
    const card = element("fieldset", { className: "card" }, element("legend", {}, `Row ${row + 1}`), fields);
    if (this.values.length > 1) {
      const remove = element("button", { type: "button", className: "remove", ariaLabel: `Remove row ${row + 1}` }, "×");
      remove.onclick = () => this.remove(row);
      card.append(remove);
    }
    card.append(element("div", { className: "answer" }));
    return card;
  }

  field(row, column, cells) {
    const id = `cell-${row}-${column.at}`;
    const field = element("div", { className: "field" });
    const put = (cell) => {
      cells[column.at] = cell;
      clear(field);
      this.answer(row, "");
      this.changed();
    };
    const input = inputOf(column, cells[column.at], put);
    input.id = id;
    input.setAttribute("aria-describedby", `${id}-hint ${id}-error`);
    Object.assign(input.dataset, { row, column: column.at });
    field.append(
      element("label", { htmlFor: id }, named(column.label)),
      input,
      element("span", { className: "hint", id: `${id}-hint` }, hintOf(column)),
      element("span", { className: "error", id: `${id}-error` }),
    );
    return field;
  }

  /** Show an error beside the cell that it names, on the page of fields where that is. */
  fail(place, message) {
    if (place.column !== null) {
      const at = this.shown.findIndex((one) => one.at === place.column);
      if (at < 0) this.find((byId("find").value = ""));
      const there = at < 0 ? place.column : at;
      if (there < this.from || there >= this.from + FIELDS) this.turn(there - (there % FIELDS));
    }
    const card = this.cards[place.row];
    const input = card?.querySelector(`[data-column="${place.column}"]`);
    if (!input) return card?.querySelector(".answer").replaceChildren(element("p", { className: "error" }, message));
    input.setAttribute("aria-invalid", "true");
    input.parentElement.classList.add("bad");
    input.parentElement.querySelector(".error").textContent = message;
    input.focus();
  }

  /** Show an answer in its row. */
  answer(row, shown) {
    this.cards[row]?.querySelector(".answer").replaceChildren(shown);
  }

  /** Take away answers and errors. */
  clear() {
    for (const card of this.cards) {
      card.querySelector(".answer").replaceChildren();
      card.querySelectorAll(".bad").forEach(clear);
    }
  }
}

function clear(field) {
  field.classList.remove("bad");
  field.querySelector("[aria-invalid]")?.removeAttribute("aria-invalid");
  const error = field.querySelector(".error");
  if (error) error.textContent = "";
}

/** Make the field of a cell: a list of what the model knows, or a line to type in. */
function inputOf(column, cell, put) {
  const known = [...column.known.values()].slice(0, CHOICES);
  const place = known.indexOf(cell);
  if (!known.length || (cell !== "" && place < 0)) return lineOf(column, cell, put);
  const options = known.map((one, at) => new Option(textOf(one) || "(empty)", at));
  const select = element("select", {}, new Option("(missing)", ""), ...options, new Option("another value ...", "other"));
  select.value = place < 0 ? "" : place;
  select.onchange = () => {
    if (select.value !== "other") return put(known[select.value] ?? "");
    const line = lineOf(column, "", put);
    for (const { name, value } of select.attributes) line.setAttribute(name, value);
    select.replaceWith(line);
    put("");
    line.focus();
  };
  return select;
}

function lineOf(column, cell, put) {
  const number = column.kind === "number";
  const line = number
    ? element("input", { inputMode: "decimal", autocomplete: "off" })
    : element("textarea", { rows: column.alone ? 3 : 1, dir: "auto" });
  Object.assign(line, { value: textOf(cell), spellcheck: false, placeholder: "missing" });
  line.oninput = () => put(cellOf(column, line.value));
  return line;
}

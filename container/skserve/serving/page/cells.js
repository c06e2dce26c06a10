// One cell: what is typed or chosen, how JSON carries it, and which one an error names.
//
// A cell is the text that was typed, or {learned} with a value that the model knows.

const NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/;

/** Prepare the columns that the server describes. */
export function columnsOf(description) {
  if (description.input === "list of texts") {
    return [{ at: 0, name: null, label: "text", kind: "text", alone: true, values: [], known: new Map() }];
  }
  return description.columns.map((one, at) => ({
    ...one,
    at,
    label: one.name ?? `column ${at + 1}`,
    kind: one.type,
    values: one.values ?? [],
    known: new Map((one.values ?? []).map((value) => [spelled(value), { learned: value }])),
  }));
}

/** Spell a value for people; a text is its own spelling. */
export const spelled = (value) => (value === null ? "" : String(value));

/** Make a cell of text that was pasted: the value that the model knows by it, or the text. */
export const cellOf = (column, text) =>
  column.known.get(text) ?? column.known.get(/^(true|false)$/i.test(text) ? text.toLowerCase() : text) ?? text;

/** Make a cell of a value of JSON. */
export const cellOfValue = (column, value) => cellOf(column, spelled(value));

/** Return what a field shows. */
export const textOf = (cell) => (typeof cell === "string" ? cell : spelled(cell.learned));

/** Write a cell as JSON. Digits stay as they were typed, so that none is rounded. */
export function jsonOf(column, cell) {
  if (typeof cell !== "string") return typeof cell.learned === "bigint" ? String(cell.learned) : JSON.stringify(cell.learned);
  if (column.kind === "text") return cell === "" ? "null" : JSON.stringify(cell);
  const text = cell.trim();
  if (text === "") return "null";
  if (NUMBER.test(text)) return text;
  if (column.kind === "number") return JSON.stringify(cell);
  if (/^(true|false)$/i.test(text)) return text.toLowerCase(); // a column of any type
  return /^".*"$/s.test(text) ? JSON.stringify(text.slice(1, -1)) : JSON.stringify(cell);
}

/** Seven digits of a number: what people read. */
export const short = (value) => String(Number.isInteger(value) ? value : Number(value.toPrecision(7)));

/** Say what a column takes, in a few words. */
export function hintOf({ kind, values, minimum, maximum }) {
  const range = minimum === undefined ? "" : `, ${short(minimum)} to ${short(maximum)} seen`;
  if (values.length && values.every((one) => typeof one === "boolean")) return "true or false";
  const known = values.length ? `, ${values.length.toLocaleString("en")} known` : "";
  return ({ unused: "not used by the model", date: "date, not supported" }[kind] ?? kind) + known + range;
}

/** Find the row and column that an error names, from 0; null where it names none. */
export function placeOf(message, columns) {
  const found = /^Row (\d+)(, column )?/.exec(message);
  if (!found) return null;
  const row = Number(found[1]) - 1;
  if (!found[2]) return { row, column: null };
  const rest = message.slice(found[0].length);
  const named = columns.filter((one) => startsWithName(rest, one));
  named.sort((one, other) => other.label.length - one.label.length);
  return { row, column: named[0]?.at ?? null };
}

function startsWithName(rest, column) {
  const name = column.name === null ? String(column.at + 1) : pythonText(column.name);
  return rest.startsWith(`${name}:`) || rest.startsWith(`${name} is `);
}

/** Spell a text as Python's repr does: so the server's errors quote, and so it is a literal. */
export function pythonText(text) {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  return quote + Array.from(text, (one) => pythonLetter(one, quote)).join("") + quote;
}

function pythonLetter(one, quote) {
  const plain = { "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", [quote]: `\\${quote}` }[one];
  if (plain) return plain;
  if (one === " " || !/[\p{C}\p{Z}]/u.test(one)) return one;
  const code = one.codePointAt(0).toString(16);
  if (code.length <= 2) return `\\x${code.padStart(2, "0")}`;
  return code.length <= 4 ? `\\u${code.padStart(4, "0")}` : `\\U${code.padStart(8, "0")}`;
}

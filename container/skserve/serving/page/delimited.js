// CSV, and what spreadsheets put on the clipboard.

/** Split one record into its cells. */
export function cellsOf(record, separator = ",") {
  const cells = [];
  let at = 0;
  for (;;) {
    if (record[at] === '"') {
      const [cell, end] = quoted(record, at);
      const next = record.indexOf(separator, end);
      cells.push(cell + record.slice(end, next < 0 ? record.length : next));
      at = next;
    } else {
      const next = record.indexOf(separator, at);
      cells.push(record.slice(at, next < 0 ? record.length : next));
      at = next;
    }
    if (at < 0) return cells;
    at += 1;
  }
}

/** Return the text between the quotes that open at `at`, and the place behind them. */
function quoted(record, at) {
  let text = "";
  for (let from = at + 1; ; ) {
    const close = record.indexOf('"', from);
    if (close < 0) return [text + record.slice(from), record.length];
    text += record.slice(from, close);
    if (record[close + 1] !== '"') return [text, close + 1];
    text += '"';
    from = close + 2;
  }
}

/** Split text into whole records and the rest behind the last line end. */
export function recordsOf(text) {
  const records = [];
  let start = 0, open = false, quote = text.indexOf('"');
  for (let from = 0; ; ) {
    const end = text.indexOf("\n", from);
    if (end < 0) return { records, rest: text.slice(start) };
    for (; quote >= 0 && quote < end; quote = text.indexOf('"', quote + 1)) open = !open;
    from = end + 1;
    if (open) continue;
    records.push(text.slice(start, end > start && text[end - 1] === "\r" ? end - 1 : end));
    start = from;
  }
}

/** Read a block from the clipboard: cells by tab, or by comma where there is no tab. */
export function blockOf(text, width) {
  const { records, rest } = recordsOf(text);
  if (rest !== "") records.push(rest.replace(/\r$/, ""));
  const tabs = records.map((one) => cellsOf(one, "\t"));
  if (width === 1 || tabs.some((one) => one.length > 1)) return tabs;
  const commas = records.map((one) => cellsOf(one));
  return commas.every((one) => one.length === width) ? commas : tabs;
}

/** Return for each cell of a header the place of its column; null where it is no header. */
export function headerOf(cells, columns) {
  const places = new Map(columns.map((one) => [one.name, one.at]));
  const found = cells.map((cell) => places.get(cell) ?? places.get(cell.trim()));
  return cells.length && found.every((at) => at !== undefined) ? found : null;
}

/** Read a file as text, `most` records at a time. */
export async function* portionsOf(file, most) {
  const decoder = new TextDecoderStream("utf-8", { fatal: true });
  const reader = file.stream().pipeThrough(decoder).getReader();
  let text = "", ready = [];
  for (let done = false; !done; ) {
    const part = await reader.read();
    done = part.done;
    const { records, rest } = recordsOf(done && text !== "" ? `${text}\n` : text + (part.value ?? ""));
    text = rest;
    ready.push(...records);
    if (done && text !== "") ready.push(text); // a quote that is never closed: the server says so
    while (ready.length >= most) yield ready.splice(0, most);
  }
  if (ready.length) yield ready;
}

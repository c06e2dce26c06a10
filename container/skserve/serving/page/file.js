// A dropped CSV file: sent in portions, its answers kept beside its rows until they are saved.

import { count } from "./dom.js";
import { cellsOf, headerOf, portionsOf, recordsOf } from "./delimited.js";
import { placeOf } from "./cells.js";
import { ask } from "./server.js";

// Records and characters of one request, and how often a server that is busy is asked again.
const PORTION = 1000;
const LETTERS = 1 << 20;
const PATIENCE = 10;

export class FileRun {
  /** `header` says whether the first line is one; `method` names the columns of the answers. */
  constructor(file, columns, path, method) {
    Object.assign(this, { file, columns, path, method, attributes: method && `method=${method}` });
    this.portions = portionsOf(file, PORTION);
    this.pending = []; // records that are read and not answered yet
    this.done = { rows: 0, bytes: 0, skipped: 0 };
    this.saved = [];
    this.header = null;
    this.ended = false;
  }

  /** Read the beginning. Returns whether its first line is known to be a header. */
  async open() {
    await this.fill();
    return this.pending.length > 0 && headerOf(cellsOf(this.pending[0]), this.columns) !== null;
  }

  /** Take the first line for the header; one that the model has no names for is left out. */
  takeHeader(isHeader) {
    if (!isHeader || this.header !== null || !this.pending.length) return;
    this.header = this.pending.shift();
    this.done.bytes += sizeOf([this.header]);
  }

  /** Answer all that is left. Returns an error with its row in the file, or null at the end. */
  async go(signal, progress) {
    while (await this.fill()) {
      const failed = await this.portion(this.next(), signal);
      if (failed) return failed;
      progress();
    }
    this.ended = true;
    return null;
  }

  /** The records of the next request: as many as are read, and not too large together. */
  next() {
    let letters = 0;
    const most = this.pending.findIndex((one) => (letters += one.length) > LETTERS);
    return most < 0 ? [...this.pending] : this.pending.slice(0, Math.max(1, most));
  }

  skip() {
    this.keep([this.pending[0]], [""]);
    this.done.skipped += 1;
  }

  get share() {
    return this.ended ? 1 : Math.min(1, this.done.bytes / Math.max(1, this.file.size));
  }

  /** The rows that were answered, each with its answer behind it. */
  parts() {
    if (this.header === null || !this.saved.length) return this.saved;
    const names = this.width === 1 ? [this.method] : Array.from({ length: this.width }, (_, at) => `${this.method}_${at + 1}`);
    return [`${this.header},${names.join(",")}\n`, ...this.saved];
  }

  async fill() {
    if (this.pending.length) return true;
    const { done, value } = await this.portions.next();
    if (!done) this.pending = value;
    // Spreadsheets end a file with blank lines; for one column each would be a missing value.
    while (this.columns.length > 1 && value?.length < PORTION && this.pending.at(-1) === "") this.pending.pop();
    return this.pending.length > 0;
  }

  async portion(records, signal) {
    const answer = await this.patiently(records, signal);
    if (!answer.error) {
      const lines = recordsOf(answer.text).records;
      if (lines.length === records.length) return void this.keep(records, lines);
      return { message: `${count(lines.length, "line")} came back for ${count(records.length, "row")}.`, hint: "" };
    }
    const at = placeOf(answer.error.message, [])?.row;
    if (!(at < records.length)) return answer.error;
    if (at > 0) {
      const failed = await this.portion(records.slice(0, at), signal); // the rows before it are good
      if (failed) return failed;
    }
    const row = this.done.rows + 1;
    return { ...answer.error, row, message: answer.error.message.replace(/\d+/, row.toLocaleString("en")) };
  }

  /** Ask, and ask again after a while where the server has too much to do. */
  async patiently(records, signal) {
    const named = this.header !== null && this.columns[0]?.name != null;
    const type = `text/csv; header=${named ? "present" : "absent"}`;
    const body = `${(named ? [this.header, ...records] : records).join("\n")}\n`;
    for (let tries = 1; ; tries += 1) {
      const answer = await ask("POST", this.path, { body, type, accept: "text/csv", attributes: this.attributes, signal });
      if (answer.status !== 503 || tries === PATIENCE) return answer;
      await new Promise((resolve) => setTimeout(resolve, 1000));
      signal.throwIfAborted();
    }
  }

  keep(records, lines) {
    this.width ??= lines[0] === "" ? undefined : cellsOf(lines[0]).length;
    this.saved.push(records.map((record, at) => `${record},${lines[at]}\n`).join(""));
    this.done.rows += records.length;
    this.done.bytes += sizeOf(records);
    this.pending.splice(0, records.length);
  }
}

/** The bytes of records in a file, with their line ends. */
const sizeOf = (records) => new Blob(records).size + records.length;

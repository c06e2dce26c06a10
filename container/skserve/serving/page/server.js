// The routes of this server, below the folder of the page: a proxy may have put it deeper.

const BASE = new URL("./", location.href);

export const url = (path) => new URL(path, BASE).href;

/** Parse JSON; a whole number that JavaScript would round becomes a BigInt. */
export function parse(text) {
  return JSON.parse(text, (key, value, context) => {
    const rounded = Number.isInteger(value) && !Number.isSafeInteger(value);
    return rounded && /^-?\d+$/.test(context?.source ?? "") ? BigInt(context.source) : value;
  });
}

/** Write JSON, BigInts as the numbers that they are. */
export function write(value) {
  if (typeof value === "bigint") return String(value);
  if (Array.isArray(value)) return `[${value.map((one) => write(one)).join(", ")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const pairs = Object.entries(value).map(([key, one]) => `${JSON.stringify(key)}: ${write(one)}`);
  return `{${pairs.join(", ")}}`;
}

/** Escape a model's name; a byte that was no UTF-8 is a lone surrogate. */
export function segment(name) {
  return name.replace(/[\udc80-\udcff]|[^\udc80-\udcff]+/gu, (part) =>
    /^[\udc80-\udcff]$/u.test(part)
      ? `%${(part.charCodeAt(0) - 0xdc00).toString(16)}`
      : encodeURIComponent(part),
  );
}

/** The two routes of one model: the only one, or one of many. */
export function routesOf(name) {
  if (name === null) return { invoke: "invocations", openapi: "openapi.json", describe: ["GET", ""] };
  const path = `models/${segment(name)}`;
  return { invoke: `${path}/invoke`, openapi: `${path}/openapi.json`, describe: ["OPTIONS", `${path}/invoke`] };
}

/** Ask a route. Returns its status, its body as bytes and as text, its seconds, and `error` where it failed. */
export async function ask(method, path, { body, type, accept = "application/json", attributes, signal } = {}) {
  const headers = { Accept: accept };
  if (type) headers["Content-Type"] = type;
  if (attributes) headers["X-Amzn-SageMaker-Custom-Attributes"] = attributes;
  const began = performance.now();
  let response, bytes;
  try {
    response = await fetch(url(path), { method, headers, body, signal, cache: "no-store" });
    bytes = await response.blob();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return { status: 0, text: "", seconds: 0, error: { message: "The server cannot be reached.", hint: "" } };
  }
  const seconds = (performance.now() - began) / 1000;
  const answer = { status: response.status, bytes, text: await bytes.text(), seconds };
  answer.type = response.headers.get("Content-Type") ?? "";
  if (!response.ok) answer.error = errorOf(answer);
  return answer;
}

/** Read an error of this server, of Multi Model Server, or of a proxy. */
function errorOf({ status, text }) {
  try {
    const said = JSON.parse(text);
    const { message, hint = "" } = said.error ?? said;
    if (typeof message === "string") return { message, hint: String(hint) };
  } catch {
    // a proxy's own page, perhaps
  }
  return { message: `The server answered ${status}.`, hint: text.slice(0, 300) };
}

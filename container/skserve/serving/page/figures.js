// The figures of /metrics, live: rates over the last minute, sizes as they are now.

import { byId, element } from "./dom.js";
import { ask } from "./server.js";

const EVERY = 2000; // ms
const SAMPLES = 30;

/** Show the figures while the page is looked at, if this server has any. */
export async function follow() {
  const samples = [];
  const look = async () => {
    if (!document.hidden) {
      const answer = await ask("GET", "metrics", { accept: "text/plain" });
      if (answer.status && answer.status !== 200) return; // there are none here
      if (answer.status) samples.push({ at: Date.now(), series: read(answer.text) });
      if (samples.length > SAMPLES) samples.shift();
      if (samples.length) draw(samples);
    }
    setTimeout(look, EVERY);
  };
  await look();
}

/** Read Prometheus' text: a list of {name, labels, value}. */
export function read(text) {
  const lines = text.split("\n").filter((line) => line && !line.startsWith("#"));
  return lines.map((line) => {
    const [, name, labels = "", value] = /^([^{\s]+)(?:\{(.*)\})?\s+(\S+)/.exec(line) ?? [];
    return { name, labels: Object.fromEntries(labelsOf(labels)), value: Number(value?.replace("Inf", "Infinity")) };
  });
}

const labelsOf = (text) => Array.from(text.matchAll(/([^\s,=]+)="((?:[^"\\]|\\.)*)"/g), ([, name, value]) => [name, value]);

const sum = (series, name, fits = () => true) =>
  series.reduce((total, one) => (one.name === name && fits(one.labels) ? total + one.value : total), 0);

function draw(samples) {
  const [first, last] = [samples[0], samples.at(-1)];
  const seconds = Math.max(EVERY / 1000, (last.at - first.at) / 1000);
  const grown = (name, fits) => sum(last.series, name, fits) - sum(first.series, name, fits);
  const failed = ({ status }) => !/^[123]/.test(status);
  const requests = grown("skserve_requests_total");
  const calls = grown("skserve_predictions_total");
  const memory = sum(last.series, "skserve_memory_bytes");
  const shown = {
    "requests / s": tidy(requests / seconds),
    "requests in all": sum(last.series, "skserve_requests_total").toLocaleString("en"),
    "failed, last minute": tidy(grown("skserve_requests_total", failed)),
    "median": milliseconds(quantile(samples, 0.5)),
    "99 of 100 within": milliseconds(quantile(samples, 0.99)),
    "rows in one call": calls ? tidy(grown("skserve_rows_total") / calls) : "–",
    "running, waiting": `${sum(last.series, "skserve_requests_in_progress")}, ${sum(last.series, "skserve_requests_waiting")}`,
    "workers": String(sum(last.series, "skserve_workers")),
    "memory": memory ? `${Math.round(memory / 2 ** 20).toLocaleString("en")} MiB` : "–",
  };
  const pairs = Object.entries(shown).map(([term, said]) => element("div", {}, element("dt", {}, term), element("dd", {}, said)));
  byId("figures-list").replaceChildren(...pairs);
  byId("figures").hidden = false;
}

const tidy = (value) => (value >= 100 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(2))));

const milliseconds = (seconds) => (seconds === null ? "–" : `${tidy(1000 * seconds)} ms`);

/** The bound of the bucket in which quantile `q` of the last minute lies. */
function quantile(samples, q) {
  const bounds = ({ series }) =>
    new Map(series.filter((one) => one.name === "skserve_request_seconds_bucket" && one.labels.stage === "total")
      .map((one) => [one.labels.le, one.value]));
  const [before, after] = [bounds(samples[0]), bounds(samples.at(-1))];
  const grown = Array.from(after, ([le, value]) => [Number(le.replace("+Inf", "Infinity")), value - (before.get(le) ?? 0)]);
  grown.sort(([one], [other]) => one - other);
  const all = grown.at(-1)?.[1] ?? 0;
  const found = grown.find(([, below]) => below >= q * all);
  return all && found[0] < Infinity ? found[0] : null;
}

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
    const pairs = Array.from(labels.matchAll(/([^\s,=]+)="((?:[^"\\]|\\.)*)"/g), (found) => found.slice(1));
    return { name, labels: Object.fromEntries(pairs), value: Number(value?.replace("Inf", "Infinity")) };
  });
}

const sum = (series, name, fits = () => true) =>
  series.reduce((total, one) => (one.name === name && fits(one.labels) ? total + one.value : total), 0);

function draw(samples) {
  const [first, last] = [samples[0], samples.at(-1)];
  const seconds = Math.max(EVERY, last.at - first.at) / 1000;
  const now = (name) => sum(last.series, name);
  const grown = (name, fits) => sum(last.series, name, fits) - sum(first.series, name, fits);
  const calls = grown("skserve_predictions_total");
  const memory = now("skserve_memory_bytes");
  const shown = {
    "requests / s": tidy(grown("skserve_requests_total") / seconds),
    "requests in all": now("skserve_requests_total").toLocaleString("en"),
    "failed, last minute": tidy(grown("skserve_requests_total", ({ status }) => !/^[123]/.test(status))),
    "median": milliseconds(quantile(samples, 0.5)),
    "99 of 100 within": milliseconds(quantile(samples, 0.99)),
    "rows in one call": calls ? tidy(grown("skserve_rows_total") / calls) : "–",
    "running, waiting": `${now("skserve_requests_in_progress")}, ${now("skserve_requests_waiting")}`,
    "workers": String(now("skserve_workers")),
    "memory": memory ? `${Math.round(memory / 2 ** 20).toLocaleString("en")} MiB` : "–",
  };
  const pairs = Object.entries(shown).map(([term, said]) => element("div", {}, element("dt", {}, term), element("dd", {}, said)));
  byId("figures-list").replaceChildren(...pairs);
  byId("figures").hidden = false;
}

const tidy = (value) => (value >= 100 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(2))));

const milliseconds = (seconds) => (seconds > 0 ? `${tidy(1000 * seconds)} ms` : "–");

/** The bound in seconds of the bucket in which quantile `q` of the last minute lies, if it has one. */
function quantile(samples, q) {
  const buckets = ({ series }) =>
    series.filter(({ name, labels }) => name === "skserve_request_seconds_bucket" && labels.stage === "total");
  const before = buckets(samples[0]);
  const grown = buckets(samples.at(-1)).map(({ labels, value }, at) => ({ bound: Number(labels.le), below: value - before[at].value }));
  const all = grown.at(-1)?.below;
  return all ? grown.find(({ below }) => below >= q * all).bound : NaN;
}

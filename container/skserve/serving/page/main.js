// The page of a served model: asks the server what it is, and offers what can be done with it.

import { columnsOf } from "./cells.js";
import { offerCalls } from "./calls.js";
import { leave, offerFile } from "./drop.js";
import { offerRows } from "./try.js";
import { offerRaw } from "./raw.js";
import { ask, parse, routesOf, segment, url } from "./server.js";
import { byId, element, named, say } from "./dom.js";
import { describe } from "./model.js";
import { follow } from "./figures.js";

const READS = ["input_fn", "transform_fn"];
const AGAIN = 2000; // ms until a model that loads is asked again

async function start() {
  follow();
  const server = await described(routesOf(null));
  if (!server.models) return open(server, null);
  say("title", "Many models");
  say("summary", "Each answers under its own name.");
  window.onhashchange = () => openNamed().catch(fail);
  await listModels("");
  await openNamed();
}

/** Ask what a model is, again and again while it loads. Raises Error. */
async function described({ describe: [method, path] }) {
  for (;;) {
    const { error, status, text } = await ask(method, path);
    if (!error) return parse(text);
    if (status !== 503) throw new Error(`${error.message} ${error.hint}`);
    await new Promise((resolve) => setTimeout(resolve, AGAIN));
  }
}

function fail(error) {
  say("failure", error.message, true);
  byId("failure").hidden = false;
}

async function listModels(token) {
  const { error, text } = await ask("GET", `models?next_page_token=${encodeURIComponent(token)}`);
  if (error) return fail(error);
  const page = parse(text);
  const list = byId("models-list");
  if (!token) list.replaceChildren();
  list.append(...page.models.map(({ modelName }) =>
    element("li", {}, element("a", { href: `#${segment(modelName)}` }, named(modelName)))));
  if (!list.children.length) list.append(element("li", { className: "hint" }, "None: POST /models loads one."));
  byId("models-more").hidden = !page.nextPageToken;
  byId("models-more").onclick = () => listModels(page.nextPageToken).catch(fail);
  byId("models").hidden = false;
}

/** Open the model that the address names. */
async function openNamed() {
  const links = [...byId("models-list").querySelectorAll("a")];
  const link = links.find((one) => one.hash === location.hash);
  for (const one of links) one.ariaCurrent = one === link ? "true" : null;
  if (!link) return;
  const name = link.textContent;
  const model = await described(routesOf(name));
  if (link.hash === location.hash) open(model, name); // no other was chosen meanwhile
}

function open(model, name) {
  leave();
  for (const id of ["try", "raw", "file", "failure"]) byId(id).hidden = true;
  const { invoke, openapi } = routesOf(name);
  const columns = columnsOf(model);
  byId("openapi").href = url(openapi);
  describe(model, columns, name);
  const tell = offerCalls(url(invoke), name);
  const why = whyRaw(model, columns);
  if (why) return offerRaw(model, why, invoke, tell);
  offerRows(model, columns, invoke, tell);
  offerFile(columns, invoke);
}

/** Say what cannot be known of a body; nothing where the columns are known. */
function whyRaw({ script }, columns) {
  const own = READS.filter((hook) => script.includes(hook)).join(" and ");
  if (own) return `This model's script reads the body itself, by ${own}. What it takes only the script knows: write a body for it.`;
  return columns.length ? "" : "The model does not say how many columns it takes: write a body for it.";
}

start().catch(fail);

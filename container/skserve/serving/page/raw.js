// A body that is written by hand, for a script that reads it itself.

import { byId, onSubmit } from "./dom.js";
import { ask } from "./server.js";

/** Offer a raw body; `tell` is told the call that would be sent. */
export function offerRaw(model, why, path, tell) {
  byId("raw").hidden = false;
  byId("raw-why").textContent = why;
  byId("types").replaceChildren(...model.content_types.map((name) => new Option(name)));
  byId("accepts").replaceChildren(...model.accept.map((name) => new Option(name)));
  const [type, accept, body] = ["raw-type", "raw-accept", "raw-body"].map(byId);
  body.value = JSON.stringify(model.example?.body ?? []);
  const call = () => ({ type: type.value, accept: accept.value, body: body.value });
  for (const field of [type, accept, body]) field.oninput = () => tell(call());
  byId("raw-file").onchange = async ({ target }) => {
    const [file] = target.files;
    target.value = "";
    if (file) body.value = await file.text();
    tell(call());
  };
  onSubmit(byId("raw-form"), () => send(path, call()));
  tell(call());
}

async function send(path, call) {
  byId("raw-outcome").textContent = "Waiting for the answer ...";
  const answer = await ask("POST", path, call);
  const { error, status, seconds } = answer;
  byId("raw-outcome").textContent = error
    ? `${status}: ${error.message} ${error.hint}`
    : `${status} in ${(1000 * seconds).toFixed(1)} ms, ${answer.type || "no Content-Type"}`;
  byId("raw-outcome").className = error ? "error" : "";
  byId("raw-answer").hidden = Boolean(error);
  byId("raw-answer").textContent = answer.text;
}

// A body that is written by hand, or a file, for a script that reads it itself.

import { byId, onFile, onSubmit, save, say, sizeOf } from "./dom.js";
import { ask } from "./server.js";

/** Offer a raw body; `tell` is told the call that would be sent. */
export function offerRaw(model, why, path, tell) {
  byId("raw").hidden = false;
  say("raw-why", why);
  byId("types").replaceChildren(...model.content_types.map((name) => new Option(name)));
  byId("accepts").replaceChildren(...model.accept.map((name) => new Option(name)));
  const [type, accept, text, write] = ["raw-type", "raw-accept", "raw-text", "raw-write"].map(byId);
  text.value = JSON.stringify(model.example?.body ?? []);
  let file = null; // sent as it is, in the place of the text
  const call = () => ({ type: type.value, accept: accept.value, body: file ?? text.value });
  const show = () => {
    say("raw-name", file ? `${file.name}, ${sizeOf(file)}, is sent as it is.` : "");
    text.hidden = file !== null;
    write.hidden = !file;
    tell(call());
  };
  for (const field of [type, accept, text]) field.oninput = show;
  onFile(byId("raw-file"), byId("raw"), (taken) => {
    file = taken;
    const ending = file.name.split(".").at(-1).toLowerCase();
    type.value = model.content_types.find((one) => one.includes(ending)) ?? (file.type || "application/octet-stream");
    show();
  });
  write.onclick = () => {
    file = null;
    show();
  };
  onSubmit(byId("raw-form"), () => send(path, call()));
  show();
}

async function send(path, call) {
  say("raw-outcome", "Waiting for the answer ...");
  const { error, status, seconds, type, text, bytes } = await ask("POST", path, call);
  const said = error ? `: ${error.message} ${error.hint}` : ` in ${(1000 * seconds).toFixed(1)} ms, ${type || "no Content-Type"}`;
  say("raw-outcome", `${status}${said}`, error);
  say("raw-answer", text);
  byId("raw-answer").hidden = error || !/text|json/.test(type);
  byId("raw-save").hidden = error;
  byId("raw-save").onclick = () => save("answer", [bytes], type);
}

// The same call for other tools, with everything quoted as each of them needs it.

import { pythonText } from "./cells.js";
import { byId, copy, say } from "./dom.js";

const LANGUAGES = { curl, boto3, Python: python };

/** Offer the calls of one model. Returns the function that is told each call to show. */
export function offerCalls(url, model) {
  const language = byId("language");
  let call = null;
  const show = () => say("call", LANGUAGES[language.value]({ ...call, url, model }));
  if (!language.options.length) language.append(...Object.keys(LANGUAGES).map((name) => new Option(name)));
  language.onchange = show;
  byId("copy").onclick = async () => {
    say("copied", (await copy(byId("call"))) ? "Copied." : "Select it and copy by hand.");
    setTimeout(() => say("copied", ""), 3000);
  };
  byId("calls").hidden = false;
  return (told) => {
    call = told;
    show();
  };
}

function curl({ url, type, accept, body }) {
  const headers = [`Content-Type: ${type}`, ...(accept === "" ? [] : [`Accept: ${accept}`])];
  const lines = headers.map((one) => `  -H ${shell(one)} \\\n`).join("");
  const sent = body.name ? `--data-binary ${shell(`@${body.name}`)}` : `--data-raw ${shell(body)}`;
  return `curl -s ${shell(url)} \\\n${lines}  ${sent}`;
}

function boto3({ type, accept, body, model }) {
  const target = model === null ? "" : `    TargetModel=${pythonText(model)},\n`;
  return `import boto3

runtime = boto3.client("sagemaker-runtime")
answer = runtime.invoke_endpoint(
    EndpointName="my-endpoint",
${target}    ContentType=${pythonText(type)},
    Accept=${pythonText(accept)},
    Body=${bytesOf(body)},
)
print(answer["Body"].read().decode())
`;
}

function python({ url, type, accept, body }) {
  return `import requests

answer = requests.post(
    ${pythonText(url)},
    headers={"Content-Type": ${pythonText(type)}, "Accept": ${pythonText(accept)}},
    data=${bytesOf(body)},
)
print(answer.status_code, answer.text)
`;
}

/** The body in Python: of a text, or of a file. */
const bytesOf = (body) => (body.name ? `open(${pythonText(body.name)}, "rb")` : `${pythonText(body)}.encode()`);

/** Quote text for a POSIX shell. */
const shell = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

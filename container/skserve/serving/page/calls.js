// The same call for other tools, with everything quoted as each of them needs it.

import { pythonText } from "./cells.js";
import { byId, copy } from "./dom.js";

const LANGUAGES = { curl, boto3, Python: python };

const ENDPOINT = "my-endpoint";

/** Offer the calls of one model. Returns the function that is told each call to show. */
export function offerCalls(url, model) {
  const language = byId("language");
  let call = null;
  const show = () => (byId("call").textContent = LANGUAGES[language.value]({ ...call, url, model }));
  if (!language.options.length) language.append(...Object.keys(LANGUAGES).map((name) => new Option(name)));
  language.onchange = show;
  byId("copy").onclick = async () => {
    byId("copied").textContent = (await copy(byId("call").textContent)) ? "Copied." : "Select it and copy by hand.";
    setTimeout(() => (byId("copied").textContent = ""), 3000);
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
  return `curl -s ${shell(url)} \\\n${lines}  --data-raw ${shell(body)}`;
}

function boto3({ type, accept, body, model }) {
  const target = model === null ? "" : `    TargetModel=${pythonText(model)},\n`;
  return `import boto3

runtime = boto3.client("sagemaker-runtime")
answer = runtime.invoke_endpoint(
    EndpointName="${ENDPOINT}",
${target}    ContentType=${pythonText(type)},
    Accept=${pythonText(accept)},
    Body=${pythonText(body)}.encode(),
)
print(answer["Body"].read().decode())
`;
}

function python({ url, type, accept, body }) {
  return `import requests

answer = requests.post(
    ${pythonText(url)},
    headers={"Content-Type": ${pythonText(type)}, "Accept": ${pythonText(accept)}},
    data=${pythonText(body)}.encode(),
)
print(answer.status_code, answer.text)
`;
}

/** Quote text for a POSIX shell. */
const shell = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

// Elements made of text alone: whatever a name or a value holds, it is shown and never parsed.

export const byId = (id) => document.getElementById(id);

/** Put text into an element, in red where something failed. */
export function say(id, text, failed = false) {
  byId(id).textContent = text;
  byId(id).classList.toggle("error", failed);
}

/** Make an element. Names with a hyphen are attributes, others properties. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-")) made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

/** Show a name or a text: its direction stays its own, and an empty one is visible. */
export function named(text) {
  return element("bdi", { className: text === "" ? "name empty" : "name" }, text === "" ? "(empty)" : text);
}

export const count = (number, noun, nouns = `${noun}s`) =>
  `${number.toLocaleString("en")} ${number === 1 ? noun : nouns}`;

/** Copy what an element says; without a secure context by selecting it, as browsers did before. */
export async function copy(shown) {
  getSelection().selectAllChildren(shown);
  try {
    await navigator.clipboard.writeText(shown.textContent);
    return true;
  } catch {
    return document.execCommand("copy");
  }
}

/** Let the browser save text or bytes as a file. */
export function save(name, parts, type) {
  const url = URL.createObjectURL(new Blob(parts, { type }));
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** Call `take` with a file that is chosen in `field`, or dropped anywhere while `panel` is there. */
export function onFile(field, panel, take) {
  const over = (event, is) => {
    event.preventDefault();
    panel.classList.toggle("over", is);
  };
  const give = ([file]) => file && take(file);
  field.onchange = () => {
    give(field.files);
    field.value = "";
  };
  document.ondragover = (event) => over(event, true);
  document.ondragleave = (event) => event.relatedTarget ?? over(event, false);
  document.ondrop = (event) => {
    over(event, false);
    give(event.dataTransfer.files);
  };
}

export const sizeOf = (file) => count(file.size, "byte");

/** Call `work` at most once a frame, however often it is asked for. */
export function onceAFrame(work) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      work();
    });
  };
}

/** Call `work` when a form is submitted, also by Ctrl+Enter from a field that holds lines. */
export function onSubmit(form, work) {
  form.onsubmit = (event) => {
    event.preventDefault();
    work();
  };
  form.onkeydown = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.onsubmit(event);
  };
}

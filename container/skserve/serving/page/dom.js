// Elements made of text alone: whatever a name or a value holds, it is shown and never parsed.

export const byId = (id) => document.getElementById(id);

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

/** Copy text; without a secure context by the selection, as browsers did before. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = element("textarea", { value: text, className: "unseen" });
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

/** Let the browser save text or bytes as a file. */
export function save(name, parts, type) {
  const url = URL.createObjectURL(new Blob(parts, { type }));
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

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

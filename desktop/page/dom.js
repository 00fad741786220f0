/**
 * Elements, made without ever reading a text as HTML: names of files and of cameras are text and stay text.
 */

/**
 * An element. `props`: attributes; a function under "onclick" and the like listens; `value` and `checked` are set
 * as properties; null and false are left out.
 * @param {string} tag
 * @param {Record<string, any>} [props]
 * @param {...(Node|string|null|undefined|false)} children
 * @returns {any}
 */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === false || (value ?? null) === null) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked") element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child || child === ""));
  return element;
}

/** One of the symbols of icons.svg; decoration, so nothing reads it aloud. */
export function icon(name) {
  const svg = copyOf("icon");
  svg.firstElementChild.setAttribute("href", `icons.svg#${name}`);
  return svg;
}

/** A button with an icon and a word; with `bare` the word is its name only. */
export function button(name, label, onclick, { bare = false, ...props } = {}) {
  const look = bare ? { class: "round", "aria-label": label, title: label } : { class: "button" };
  return h("button", { type: "button", ...look, ...props, onclick }, name && icon(name), !bare && h("span", {}, label));
}

/** @param {string} id @returns {any} */
export const byId = (id) => document.getElementById(id);

// What lies outside a modal dialog is inert, and is not read aloud.
const front = () => [...document.querySelectorAll("dialog[open]")].pop() ?? document.body;

/** Say something to people who do not see the page. */
export function announce(text) {
  front().append(byId("live"));
  byId("live").textContent = text;
}

/** What this browser keeps under a name; null where storage is blocked. */
export function kept(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

/** Have the browser keep a text; where storage is blocked it lasts as long as the page. */
export function keep(name, text) {
  try {
    localStorage.setItem(name, text);
  } catch {
    // as said
  }
}

let toastTimer = 0;

/** A short notice at the foot of the page, or of the dialog that covers it; goes by itself. */
export function toast(text) {
  const box = byId("toast");
  front().append(box);
  box.textContent = text;
  box.classList.add("on");
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => box.classList.remove("on"), 5000);
}

/** Copy to the clipboard, and say so. */
export async function copyText(text, said) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without leave, or on a plain-http address of another machine, there is only the old way.
    const area = h("textarea", { class: "hidden", "aria-hidden": "true", value: text });
    front().append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  toast(said);
}

/** Have the buttons of `root` do what their data-act names. */
export function wire(root, acts) {
  for (const one of root.querySelectorAll("[data-act]")) one.addEventListener("click", acts[one.dataset.act]);
  return root;
}

/** A copy of a template of index.html, its buttons wired. */
export function copyOf(id, acts = {}) {
  return wire(byId(id).content.firstElementChild.cloneNode(true), acts);
}

/** The parts of `root` that selectors name. */
export const partsOf = (root, ...selectors) => selectors.map((selector) => root.querySelector(selector));

/** A modal dialog of a template, open; it goes away when it is closed. */
export function dialog(id, acts = {}) {
  const box = copyOf(id, { close: () => box.close(), ...acts });
  box.addEventListener("close", () => {
    document.body.append(byId("toast"), byId("live"));
    box.remove();
  });
  // A press on the backdrop is a press on the dialog itself, beside all of its content.
  box.addEventListener("mousedown", ({ target }) => target === box && (box.requestClose ?? box.close).call(box));
  document.body.append(box);
  box.showModal();
  return box;
}

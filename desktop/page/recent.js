/** Searches of late, kept in this browser alone, and offered below the search box. */

import { byId, h, keep, kept } from "./dom.js";

const KEY = "qvl-recent";
const KEPT = 8;

function stored() {
  try {
    const texts = JSON.parse(kept(KEY) ?? "[]");
    return Array.isArray(texts) ? texts.filter((text) => typeof text === "string") : [];
  } catch {
    // It holds something else.
    return [];
  }
}

const store = (texts) => keep(KEY, JSON.stringify(texts));

/** The list below `input`. `choose` is called with a search that was picked, `leave` to go on to what was found. */
export function recentList(input, choose, leave) {
  const list = byId("recent");
  let texts = stored();
  let active = -1;

  const close = () => {
    list.hidden = true;
    active = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  };
  const option = (text, index, pick) => {
    const props = { role: "option", id: `recent-${index}`, "aria-selected": "false" };
    return h("li", { ...props, class: pick === forget ? "forget" : "", onclick: () => pick(text) }, text);
  };
  const forget = () => {
    store((texts = []));
    close();
    input.focus();
  };
  const open = () => {
    const typed = input.value.trim().toLowerCase();
    const fitting = texts.filter((text) => text.toLowerCase() !== typed && text.toLowerCase().includes(typed));
    if (!fitting.length) return close();
    const options = fitting.map((text, index) => option(text, index, choose));
    if (!typed) options.push(option("Forget these searches", fitting.length, forget));
    list.replaceChildren(...options);
    list.hidden = false;
    active = -1;
    input.setAttribute("aria-expanded", "true");
    return input.removeAttribute("aria-activedescendant");
  };
  const move = (step) => {
    const options = [...list.children];
    active = (active + step + options.length + (active < 0 && step < 0 ? 1 : 0)) % options.length;
    options.forEach((one, index) => one.setAttribute("aria-selected", index === active));
    input.setAttribute("aria-activedescendant", options[active].id);
    options[active].scrollIntoView({ block: "nearest" });
  };

  // The box keeps the focus.
  list.addEventListener("mousedown", (event) => event.preventDefault());
  input.addEventListener("click", open);
  input.addEventListener("input", open);
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      if (list.hidden && !input.value) open();
      event.preventDefault();
      if (list.hidden) event.key === "ArrowDown" && leave();
      else move(event.key === "ArrowDown" ? 1 : -1);
    } else if (event.key === "Enter" && active >= 0) {
      event.preventDefault();
      list.children[active].click();
    } else if (event.key === "Escape" && !list.hidden) {
      event.preventDefault();
      close();
    }
  });
  return {
    close,
    add(text) {
      store((texts = [text, ...texts.filter((other) => other !== text)].slice(0, KEPT)));
    },
  };
}

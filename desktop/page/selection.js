/** What is selected, across searches; and what one can do with it. Files are never changed. */

import { ask, get } from "./api.js";
import { byId, copyText, h, toast, wire } from "./dom.js";
import { count, plural } from "./format.js";

/** Requests side by side; browsers open no more to one server. */
const AT_ONCE = 6;

export class Selection extends EventTarget {
  #items = new Map();
  #anchor = null;

  get size() {
    return this.#items.size;
  }

  has(id) {
    return this.#items.has(id);
  }

  toggle(item) {
    if (!this.#items.delete(item.id)) this.#items.set(item.id, item);
    this.#anchor = item.id;
    this.#changed();
  }

  add(items) {
    for (const item of items) this.#items.set(item.id, item);
    this.#changed();
  }

  /** Everything from the one selected last, or `from`, to `index`. */
  reach(items, index, from = -1) {
    const anchor = items.findIndex((item) => item.id === this.#anchor);
    const start = anchor < 0 || !this.has(this.#anchor) ? from : anchor;
    if (start < 0) return this.toggle(items[index]);
    this.#anchor = items[start].id;
    this.add(items.slice(Math.min(start, index), Math.max(start, index) + 1));
  }

  clear() {
    this.#items.clear();
    this.#changed();
  }

  get items() {
    return [...this.#items.values()];
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

/** The bar at the foot of the page while something is selected. */
export function selectionBar(selection) {
  const bar = byId("selected");
  wire(bar, {
    download: () => download(selection.items),
    copy: () => copyPaths(selection.items),
    clear: () => selection.clear(),
  });
  selection.addEventListener("change", () => {
    bar.hidden = !selection.size;
    document.body.classList.toggle("has-selection", !bar.hidden);
    bar.firstElementChild.textContent = `${count(selection.size)} selected`;
  });
}

/** Download items: one as it is, several as a zip. */
export async function download(items) {
  if (items.length === 1) return save(`file/${items[0].id}`, items[0].name);
  toast(`Packing ${plural(items.length, "file")} …`);
  try {
    const response = await ask("api/zip", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ ids: items.map((item) => item.id) }),
    });
    const address = URL.createObjectURL(await response.blob());
    save(address, "qvl-local.zip");
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  } catch (error) {
    toast(`The zip was not made: ${error.message}`);
  }
}

function save(address, name) {
  const link = h("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
}

/** Copy where files lie, one a line. */
export async function copyPaths(items) {
  const paths = items.map((item) => item.path);
  const missing = paths.flatMap((path, index) => (path ? [] : [index]));
  try {
    for (let i = 0; i < missing.length; i += AT_ONCE) {
      const some = missing.slice(i, i + AT_ONCE);
      await Promise.all(some.map(async (at) => (paths[at] = (await get(`api/media/${items[at].id}`)).path)));
    }
  } catch (error) {
    return toast(`The paths were not copied: ${error.message}`);
  }
  return copyText(paths.join("\n"), `${plural(paths.length, "path")} copied.`);
}

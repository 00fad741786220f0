/** Pictures that are (nearly) the same, in groups: to compare them, and to select those that one does not need. */

import { fileUrl, get, thumbUrl } from "./api.js";
import { announce, button, byId, dialog, h, toast } from "./dom.js";
import { bytes, dayName, plural } from "./format.js";
import { go } from "./state.js";

const GROUPS = 30;
const KINDS = { same: "The same picture", near: "Nearly the same", burst: "Taken in a row" };

/** The one worth keeping: most pixels, then most bytes, then the oldest. */
export function best(items) {
  const pixels = ({ width, height }) => width * height;
  return [...items].sort(
    (a, b) => pixels(b) - pixels(a) || (b.size ?? 0) - (a.size ?? 0) || (a.taken_at ?? "~").localeCompare(b.taken_at ?? "~"),
  )[0];
}

export class Duplicates {
  #groups = [];
  #cancel = new AbortController();

  constructor(selection) {
    this.selection = selection;
    this.box = byId("groups");
  }

  /** The items of the group that an item is in. */
  itemsFor(id) {
    return this.#groups.find(({ items }) => items.some((item) => item.id === id))?.items ?? [];
  }

  async show() {
    this.#cancel.abort();
    this.#cancel = new AbortController();
    this.#groups = [];
    this.box.replaceChildren();
    byId("title").textContent = "Duplicates";
    document.title = "Duplicates · qvl-local";
    byId("count").textContent = "Comparing …";
    await this.#more();
  }

  async #more() {
    const { signal } = this.#cancel;
    try {
      const { total, groups } = await get("api/duplicates", { offset: this.#groups.length, limit: GROUPS }, { signal });
      if (signal.aborted) return;
      this.#groups.push(...groups);
      byId("count").textContent = total ? `${plural(total, "group")} of pictures that are nearly the same` : "";
      const more = button("", "Show more groups", () => {
        more.remove();
        this.#more();
      });
      this.box.append(...groups.map((group) => this.#group(group)));
      if (groups.length && this.#groups.length < total) this.box.append(more);
      if (!total) this.box.append(h("section", { class: "notice" }, h("h2", {}, "No duplicates."), h("p", {}, "No two pictures here are nearly the same.")));
      announce(byId("count").textContent || "No duplicates");
    } catch (error) {
      if (!signal.aborted) byId("count").textContent = error.message;
    }
  }

  #group({ kind, items }) {
    const keep = best(items);
    const name = `${KINDS[kind] ?? KINDS.near}, ${plural(items.length, items[0].kind ?? "picture")}`;
    return h(
      "section",
      { class: "group", "aria-label": name },
      h(
        "header",
        {},
        h("h2", {}, name),
        button("copies", "Compare", () => compare(items, (kept) => this.#others(items, kept))),
        button("check", "Select all but the best", () => this.#others(items, keep)),
      ),
      h("ul", { role: "list" }, ...items.map((item) => this.#item(item, item === keep))),
    );
  }

  #item(item, isBest) {
    const open = h("button", { type: "button", class: "open", "aria-label": `Open ${item.name}`, onclick: () => go({ view: String(item.id) }) });
    open.append(h("img", { src: thumbUrl(item, 320 * devicePixelRatio), alt: "", loading: "lazy" }));
    const mark = h("input", { type: "checkbox", "aria-label": `Select ${item.name}`, checked: this.selection.has(item.id) });
    mark.addEventListener("change", () => this.selection.toggle(item));
    this.selection.addEventListener("change", () => (mark.checked = this.selection.has(item.id)), { signal: this.#cancel.signal });
    const about = [`${item.width} × ${item.height}`, item.size && bytes(item.size), item.taken_at && dayName(item.taken_at)];
    const label = h("label", {}, mark, h("b", {}, item.name), isBest && h("span", { class: "best" }, "Best"));
    return h("li", {}, open, label, h("small", {}, about.filter(Boolean).join(" · ")));
  }

  #others(items, keep) {
    for (const item of items) if (this.selection.has(item.id) === (item.id === keep.id)) this.selection.toggle(item);
    toast(`${keep.name} is kept; the others are selected. Copy their paths to delete them yourself.`);
  }
}

/** Side by side, at full size. `kept` is called with the one that was chosen. */
function compare(items, kept) {
  const box = dialog("compare");
  box.lastElementChild.append(...items.map(figure));
  function figure(item) {
    const take = () => {
      box.close();
      kept(item);
    };
    const picture = h("img", { src: item.kind === "video" ? thumbUrl(item, 640) : fileUrl(item.id), alt: item.name });
    picture.addEventListener("error", () => (picture.src = thumbUrl(item, 640)), { once: true });
    const about = [`${item.width} × ${item.height}`, item.size && bytes(item.size), item.taken_at && dayName(item.taken_at)];
    return h("figure", {}, picture, h("figcaption", {}, h("b", {}, item.name), h("small", {}, about.filter(Boolean).join(" · ")), button("check", "Keep this one", take)));
  }
}

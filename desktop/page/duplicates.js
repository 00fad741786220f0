/** Pictures that are (nearly) the same, in groups: to compare them, and to select those that one does not need. */

import { fileUrl, get, thumbUrl } from "./api.js";
import { announce, button, byId, copyOf, dialog, h, toast } from "./dom.js";
import { bytes, count, dayName, plural } from "./format.js";
import { go } from "./state.js";

const GROUPS = 30;
const AGAIN_MS = 700;

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
      const answer = await get("api/duplicates", { offset: this.#groups.length, limit: GROUPS }, { signal });
      const { state, done, of, total, groups } = answer;
      if (signal.aborted) return;
      if (state === "working") {
        byId("count").textContent = `Comparing${of ? `: ${count(done)} of ${count(of)}` : ""} …`;
        setTimeout(() => signal.aborted || this.#more(), AGAIN_MS);
        return;
      }
      this.#groups.push(...groups);
      byId("count").textContent = `${plural(total, "group")} of the same picture, or nearly so`;
      const more = button("", "Show more groups", () => {
        more.remove();
        this.#more();
      });
      this.box.append(...groups.map((group) => this.#group(group)));
      if (groups.length && this.#groups.length < total) this.box.append(more);
      if (!total) byId("count").textContent = "No two pictures here are nearly the same.";
      announce(byId("count").textContent);
    } catch (error) {
      if (!signal.aborted) byId("count").textContent = error.message;
    }
  }

  /** `items`: the one worth keeping first. */
  #group({ kind, items }) {
    const keep = items[0];
    const group = copyOf("group", {
      compare: () => compare(items, (kept) => this.#others(items, kept)),
      others: () => this.#others(items, keep),
    });
    const name = `${kind === "same" ? "The same" : "Nearly the same"}, ${plural(items.length, keep.kind)}`;
    group.setAttribute("aria-label", name);
    group.querySelector("h2").textContent = name;
    group.lastElementChild.append(...items.map((item) => this.#item(item, item === keep)));
    return group;
  }

  #item(item, isBest) {
    const open = h("button", { type: "button", class: "open", "aria-label": `Open ${item.name}`, onclick: () => go({ view: String(item.id) }) });
    open.append(h("img", { src: thumbUrl(item, 320 * devicePixelRatio), alt: "", loading: "lazy" }));
    const mark = h("input", { type: "checkbox", "aria-label": `Select ${item.name}`, checked: this.selection.has(item.id) });
    mark.addEventListener("change", () => this.selection.toggle(item));
    this.selection.addEventListener("change", () => (mark.checked = this.selection.has(item.id)), { signal: this.#cancel.signal });
    const label = h("label", {}, mark, h("b", {}, item.name));
    return h("li", {}, open, isBest && h("span", { class: "best" }, "Best"), label, aboutOf(item));
  }

  #others(items, keep) {
    for (const item of items) if (this.selection.has(item.id) === (item.id === keep.id)) this.selection.toggle(item);
    toast(`All but ${keep.name} are selected.`);
  }
}

const aboutOf = ({ width, height, size, taken_at }) =>
  h("small", {}, [`${width} × ${height}`, size && bytes(size), taken_at && dayName(taken_at)].filter(Boolean).join(" · "));

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
    return h("figure", {}, picture, h("figcaption", {}, h("b", {}, item.name), aboutOf(item), button("check", "Select the others", take)));
  }
}

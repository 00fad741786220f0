/**
 * The grid of pictures: thousands of items, of which only those near the screen are in the document.
 *
 * Tiles are children of one list, each at its place by a transform: when the order changes, the same tiles move.
 */

import { announce, byId, h } from "./dom.js";
import { thumbUrl } from "./api.js";
import { clock, dayName, plural } from "./format.js";
import { justify, neighbour, rowsBetween } from "./layout.js";

/** Pixels above and below the screen that are kept ready. */
const AHEAD = 500;
const MOVING_MS = 450;

export class Grid extends EventTarget {
  /**
   * Fires "open" and "near-end" ({detail: index}, none). `selection` says which items are selected.
   * @param {HTMLElement} list
   */
  constructor(list, selection) {
    super();
    this.list = list;
    this.selection = selection;
    this.items = [];
    this.total = 0;
    this.sections = [];
    this.layout = justify([], { width: 1, rowHeight: 1, gap: 0, heading: 0, sections: [] });
    this.tiles = new Map();
    // The one that Tab leads to.
    this.current = 0;
    this.pending = false;
    addEventListener("scroll", () => this.#later(), { passive: true });
    addEventListener("resize", () => this.#later());
    new ResizeObserver(() => this.#resized()).observe(list.parentElement);
    list.addEventListener("click", (event) => this.#clicked(event));
    list.addEventListener("contextmenu", (event) => this.#held(event));
    list.addEventListener("keydown", (event) => this.#key(event));
    list.addEventListener("focusin", (event) => this.#focused(event));
    selection.addEventListener("change", () => this.#mark());
  }

  /**
   * Show items. `moving`: tiles glide to their new places, and the focused item keeps the focus.
   * @param {object[]} items
   */
  show(items, { sections = [], total = items.length, moving = false } = {}) {
    const focused = this.list.contains(document.activeElement) ? this.items[this.current]?.id : undefined;
    const kept = focused === undefined ? -1 : items.findIndex((item) => item.id === focused);
    this.items = items;
    this.sections = sections;
    this.total = total;
    this.current = Math.max(0, kept);
    if (moving) {
      this.list.classList.add("moving");
      setTimeout(() => this.list.classList.remove("moving"), MOVING_MS);
    }
    this.#arrange();
    if (focused === undefined) return;
    // An item that is gone leaves the focus to the title, rather than to nothing.
    (kept < 0 ? byId("title") : this.#tile(kept).firstElementChild).focus({ preventScroll: true });
  }

  /** More of the same list, or news of it, without anything moving that is in sight. */
  extend(items, { sections = [], total = items.length } = {}) {
    this.items = items;
    this.sections = sections;
    this.total = total;
    this.#arrange();
  }

  /** Bring an item into sight and, with `focus`, to the keyboard. */
  reveal(index, { focus = true } = {}) {
    if (!this.items.length) return;
    this.current = Math.min(this.items.length - 1, Math.max(0, index));
    const row = this.layout.rows[this.layout.rowOf[this.current]];
    const above = this.#head();
    const top = this.#top() + row.y;
    if (top - scrollY < above) scrollTo(0, top - above - 8);
    else if (top + row.height - scrollY > innerHeight) scrollTo(0, top + row.height - innerHeight + 12);
    this.render();
    if (focus) this.#tile(this.current)?.querySelector(".open").focus({ preventScroll: true });
  }

  /** Put into the document what is near the screen, and take out the rest. */
  render() {
    this.pending = false;
    const { rows } = this.layout;
    const top = scrollY - this.#top();
    const [first, last] = rowsBetween(rows, top - AHEAD, top + innerHeight + AHEAD);
    const wanted = new Map();
    // The focused tile stays, wherever one scrolls: the keyboard must not lose its place.
    const pinned = this.list.contains(document.activeElement) ? this.current : -1;
    const keep = (index) => this.items[index] && wanted.set(this.items[index].id, index);
    if (pinned >= 0 && rows[first] && pinned < rows[first].from) keep(pinned);
    for (let r = first; r < last; r++) {
      if (rows[r].heading) wanted.set(`heading ${rows[r].from}`, -1 - r);
      for (let i = rows[r].from; i < rows[r].to; i++) keep(i);
    }
    if (pinned >= 0 && !wanted.has(this.items[pinned]?.id)) keep(pinned);
    for (const [key, tile] of this.tiles) {
      if (!wanted.has(key)) this.#drop(key, tile);
    }
    let next = this.list.firstElementChild;
    for (const [key, index] of wanted) {
      const tile = this.tiles.get(key) ?? this.#make(key, index);
      if (tile === next) next = next.nextElementSibling;
      else this.list.insertBefore(tile, next);
      if (index < 0) this.#placeHeading(tile, rows[-1 - index]);
      else this.#place(tile, index);
    }
    if (rows.length && last >= rows.length - 3) this.dispatchEvent(new Event("near-end"));
  }

  #arrange() {
    const width = this.list.clientWidth;
    if (!width) return;
    const rowHeight = width < 600 ? Math.max(92, width / 3.4) : Math.min(280, 150 + width / 24);
    const gap = width < 600 ? 3 : 6;
    this.width = width;
    this.layout = justify(this.items, { width, rowHeight, gap, heading: 46, sections: this.sections });
    this.list.style.height = `${this.layout.height}px`;
    this.render();
  }

  #resized() {
    if (this.list.clientWidth && this.list.clientWidth !== this.width) this.#arrange();
  }

  #later() {
    if (!this.pending) requestAnimationFrame(() => this.render());
    this.pending = true;
  }

  #top() {
    return this.list.getBoundingClientRect().top + scrollY;
  }

  #head() {
    return document.querySelector(".top").offsetHeight;
  }

  #tile(index) {
    return this.tiles.get(this.items[index]?.id);
  }

  #make(key, index) {
    const tile = index < 0 ? h("li", { class: "heading" }, h("h2")) : makeTile(this.items[index]);
    this.tiles.set(key, tile);
    return tile;
  }

  #drop(key, tile) {
    // A picture that is out of sight need not arrive.
    tile.querySelector("img")?.removeAttribute("src");
    tile.remove();
    this.tiles.delete(key);
  }

  #place(tile, index) {
    const item = this.items[index];
    const row = this.layout.rows[this.layout.rowOf[index]];
    const width = this.layout.width[index];
    const { style } = tile;
    style.transform = `translate(${this.layout.x[index]}px, ${row.y}px)`;
    style.width = `${width}px`;
    style.height = `${row.height}px`;
    const [open, check] = tile.children;
    const picture = open.firstElementChild;
    const source = thumbUrl(item, Math.max(width, row.height) * devicePixelRatio);
    if (picture.getAttribute("src") !== source) picture.src = source;
    tile.setAttribute("aria-setsize", this.total);
    tile.setAttribute("aria-posinset", index + 1);
    const says = badge(item);
    if (says) tile.dataset.badge = says;
    tile.classList.toggle("video", item.kind === "video");
    // A file may have been renamed.
    tile.dataset.name = item.name;
    open.setAttribute("aria-label", describe(item));
    check.setAttribute("aria-label", `Select ${item.name}`);
    open.tabIndex = index === this.current ? 0 : -1;
    check.setAttribute("aria-pressed", this.selection.has(item.id));
  }

  #placeHeading(tile, row) {
    tile.firstElementChild.textContent = row.heading;
    tile.style.transform = `translate(0, ${row.y}px)`;
  }

  #indexOf(target) {
    const tile = target.closest(".tile");
    if (!tile) return -1;
    const id = Number(tile.dataset.id);
    const at = Number(tile.getAttribute("aria-posinset")) - 1;
    return this.items[at]?.id === id ? at : this.items.findIndex((item) => item.id === id);
  }

  #mark() {
    this.list.classList.toggle("selecting", this.selection.size > 0);
    for (const tile of this.list.querySelectorAll(".tile")) {
      tile.lastElementChild.setAttribute("aria-pressed", this.selection.has(Number(tile.dataset.id)));
    }
  }

  #clicked(event) {
    const index = this.#indexOf(event.target);
    if (index < 0) return;
    const item = this.items[index];
    const onCheck = event.target.closest(".check");
    // On a touch screen there is no Ctrl: once something is selected, a tap selects.
    const tapSelects = this.selection.size > 0 && event.pointerType === "touch";
    if (event.shiftKey && this.selection.size) this.selection.reach(this.items, index);
    else if (onCheck || event.ctrlKey || event.metaKey || tapSelects) this.selection.toggle(item);
    else this.dispatchEvent(new CustomEvent("open", { detail: index }));
  }

  #held(event) {
    const index = this.#indexOf(event.target);
    if (index < 0 || event.pointerType !== "touch") return;
    event.preventDefault();
    this.selection.toggle(this.items[index]);
  }

  #focused(event) {
    const index = this.#indexOf(event.target);
    if (index < 0 || index === this.current) return;
    const before = this.#tile(this.current)?.querySelector(".open");
    if (before) before.tabIndex = -1;
    this.current = index;
    event.target.closest(".tile").firstElementChild.tabIndex = 0;
  }

  #key(event) {
    const { key, shiftKey } = event;
    const index = this.#indexOf(event.target);
    if (index < 0 || event.altKey) return;
    const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
    let to = null;
    if (key in steps) to = index + steps[key];
    else if (key === "ArrowUp") to = neighbour(this.layout, index, -1);
    else if (key === "ArrowDown") to = neighbour(this.layout, index, 1);
    else if (key === " " || key === "x") {
      this.selection.toggle(this.items[index]);
      announce(`${plural(this.selection.size, "item")} selected`);
    } else if (key === "a" && (event.ctrlKey || event.metaKey)) {
      this.selection.add(this.items);
      announce(`${plural(this.selection.size, "item")} selected`);
    } else if (key === "Escape" && this.selection.size) this.selection.clear();
    else return;
    event.preventDefault();
    if (to === null) return;
    this.reveal(to);
    if (shiftKey) this.selection.reach(this.items, this.current, index);
  }
}

function makeTile(item) {
  const picture = h("img", { alt: "", decoding: "async", draggable: "false" });
  picture.addEventListener("load", () => picture.classList.add("there"));
  picture.addEventListener("error", () => picture.hasAttribute("src") && tile.classList.add("broken"));
  const tile = h(
    "li",
    { class: "tile", "data-id": item.id },
    h("button", { class: "open", type: "button", tabindex: -1 }, picture),
    h("button", { class: "check", type: "button", tabindex: -1 }),
  );
  return tile;
}

/** When a video's moment begins, and how long it is; what a photo stands for besides itself. */
function badge({ kind, start_s, duration_s, companions }) {
  if (kind === "photo") return companions?.map(({ name }) => name.split(".").pop().toUpperCase()).join(" ");
  return [start_s, duration_s].filter((seconds) => seconds > 0).map(clock).join(" / ") || "0:00";
}

/** What a screen reader says of a tile. */
function describe(item) {
  const parts = [item.kind === "video" ? "Video" : "Photo", item.name];
  if (item.start_s !== null && item.start_s !== undefined) parts.push(`from ${clock(item.start_s)}`);
  if (item.taken_at) parts.push(dayName(item.taken_at));
  if (item.companions?.length) parts.push(`with ${item.companions.map((other) => other.name).join(", ")}`);
  return parts.join(", ");
}


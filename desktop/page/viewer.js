/** One item, large: with its neighbours a key away, what is known of it, and why it is here. */

import { fileUrl, get, send, thumbUrl } from "./api.js";
import { announce, copyOf, dialog, h, partsOf, toast } from "./dom.js";
import { count } from "./format.js";
import { factsOf, whyOf } from "./facts.js";
import { momentBar } from "./moments.js";
import { copyPaths, download } from "./selection.js";
import { depth, go, place } from "./state.js";

/** Kinds that most browsers cannot show. */
const FOREIGN = /\.(hei[cf]|tiff?|dng|cr[23w]|n[er][fw]|arw|raf|orf|rw[2l]|pef|srw)$/i;
/** Pixels: there is room for the facts beside the picture. */
const WIDE = 1100;
const SWIPE = 50;

export class Viewer {
  #box = null;
  #id = 0;
  #media = new Map();

  /** `itemsFor(id)`: the list an item is shown in. `query()`: what it was found by. `closed(id)`: bring it back. */
  constructor({ itemsFor, query, live, selection, closed }) {
    Object.assign(this, { itemsFor, query, live, selection, closed });
  }

  /** Show the item that the address names, or nothing. */
  follow({ view }) {
    if (!view) return this.#box?.close();
    if (Number(view) === this.#id) return undefined;
    if (!this.#box) this.#open();
    return this.#show(Number(view));
  }

  #open() {
    const box = dialog("viewer", {
      similar: () => this.#similar(),
      show: () => this.#reveal(),
      copy: () => copyPaths([this.#item()]),
      download: () => download([this.#item()]),
      select: () => this.#select(),
      info: () => this.#inform(),
      before: () => this.#step(-1),
      after: () => this.#step(1),
    });
    this.#box = box;
    [this.name, this.where, this.stage, this.bar] = partsOf(box, "h2", ".where", ".stage", ".moments");
    [this.facts, this.before, this.after, this.tick] = partsOf(box, ".facts", ".before", ".after", ".tick");
    box.querySelector("[data-act=show]").hidden = !this.live.status?.can_show_in_folder;
    if (innerWidth >= WIDE) this.#inform();
    this.#box.addEventListener("keydown", (event) => this.#key(event));
    this.#box.addEventListener("close", () => this.#closed());
    this.#swipes();
    document.documentElement.classList.add("still");
  }

  #closed() {
    const id = this.#id;
    // A video goes on otherwise.
    this.stage.replaceChildren();
    this.#box = null;
    this.#id = 0;
    this.#media.clear();
    document.documentElement.classList.remove("still");
    // The list first: stepping back brings nothing new to it.
    this.closed(id);
    if (!place().view) return;
    if (depth()) history.back();
    else go({ view: "" }, { replace: true });
  }

  #item() {
    return this.items[this.index] ?? this.#media.get(this.#id) ?? { id: this.#id, name: "" };
  }

  async #show(id) {
    this.#id = id;
    this.relist();
    const known = this.index >= 0;
    if (known) this.#draw(this.#item());
    try {
      const media = this.#media.get(id) ?? (await get(`api/media/${id}`));
      this.#media.set(id, media);
      if (id !== this.#id || !this.#box) return;
      if (!known) this.#draw(media);
      this.#tell(media);
    } catch (error) {
      if (id === this.#id) this.facts.replaceChildren(h("p", {}, error.message));
    }
    this.#ahead();
  }

  /** Find the open item's place in its list, which may have come or changed since. */
  relist() {
    if (!this.#box) return;
    this.items = this.itemsFor(this.#id);
    this.index = this.items.findIndex(({ id }) => id === this.#id);
    this.before.hidden = this.index <= 0;
    this.after.hidden = this.index < 0 || this.index === this.items.length - 1;
    this.where.textContent = this.index < 0 ? "" : `${count(this.index + 1)} of ${count(this.items.length)}`;
    const media = this.#media.get(this.#id);
    if (media) this.#tell(media);
  }

  #draw(item) {
    this.name.textContent = item.name;
    this.#box.setAttribute("aria-label", item.name);
    this.tick.setAttribute("aria-pressed", this.selection.has(item.id));
    this.bar.hidden = true;
    this.facts.replaceChildren();
    this.stage.replaceChildren(...(item.kind === "video" ? [this.#video(item)] : pictures(item)));
    // What had the focus may be gone, and the keys with it.
    if (!this.#box.contains(document.activeElement) || document.activeElement.hidden) this.stage.focus();
    announce(`${item.name}, ${this.where.textContent}`);
  }

  #tell(media) {
    const item = this.#item();
    this.facts.replaceChildren(...whyOf(item, this.items, Boolean(this.query())), ...factsOf(media, { near: (near) => this.#near(near) }));
  }

  #video(item) {
    const video = h("video", { src: fileUrl(item.id), poster: thumbUrl(item, 640), controls: true, playsinline: true, preload: "auto" });
    video.setAttribute("aria-label", item.name);
    video.addEventListener(
      "loadedmetadata",
      () => {
        if (item.start_s) video.currentTime = item.start_s;
        if (!matchMedia("(prefers-reduced-motion: reduce)").matches) video.play().catch(() => {});
        this.#moments(item, video);
      },
      { once: true },
    );
    video.addEventListener("error", () => video.replaceWith(unplayable(item)), { once: true });
    return video;
  }

  async #moments(item, video) {
    const query = this.query();
    if (!query) return;
    try {
      const { moments } = await get(`api/moments/${item.id}`, query);
      if (item.id !== this.#id || !this.#box || moments.length < 2) return;
      this.bar.replaceChildren(...momentBar(moments, video, item));
      this.bar.hidden = false;
    } catch {
      // the video itself is there
    }
  }

  #step(by) {
    const next = this.items[this.index + by];
    if (next) go({ view: String(next.id) }, { replace: true });
  }

  /** Have the neighbours' files ready. */
  #ahead() {
    for (const by of [1, -1]) {
      const next = this.items[this.index + by];
      if (this.index >= 0 && next?.kind === "photo") new Image().src = fileUrl(next.id, FOREIGN.test(next.name));
    }
  }

  #select() {
    this.selection.toggle(this.#item());
    this.tick.setAttribute("aria-pressed", this.selection.has(this.#id));
    announce(this.selection.has(this.#id) ? "Selected" : "No longer selected");
  }

  #inform() {
    const is = this.#box.classList.toggle("informed");
    this.#box.querySelector("[data-act=info]").setAttribute("aria-pressed", is);
  }

  #similar() {
    go({ q: "", picture: "", like: String(this.#id), page: "", view: "" });
  }

  #near(near) {
    go({ q: "", picture: "", like: "", near, page: "", view: "" });
  }

  async #reveal() {
    try {
      await send("POST", "api/open", { id: this.#id });
    } catch (error) {
      toast(error.message);
    }
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const video = this.stage.querySelector("video");
    const inBar = this.bar.contains(event.target);
    const act = {
      ArrowLeft: () => this.#step(-1),
      ArrowRight: () => this.#step(1),
      i: () => this.#inform(),
      s: () => this.#similar(),
      x: () => this.#select(),
      // Its own controls know the key, too, where it has the focus.
      " ": video && event.target !== video && (() => (video.paused ? video.play() : video.pause())),
    }[event.key];
    if (!act || (inBar && event.key !== " ")) return;
    event.preventDefault();
    act();
  }

  #swipes() {
    let x = 0;
    let y = 0;
    this.stage.addEventListener("touchstart", ({ touches: [finger] }) => ([x, y] = [finger.clientX, finger.clientY]), { passive: true });
    this.stage.addEventListener("touchend", ({ changedTouches: [finger] }) => {
      const [dx, dy] = [finger.clientX - x, finger.clientY - y];
      if (Math.abs(dx) > SWIPE && Math.abs(dx) > 2 * Math.abs(dy)) this.#step(dx < 0 ? 1 : -1);
      else if (dy > 2 * SWIPE && dy > 2 * Math.abs(dx)) this.#box.close();
    });
  }
}

/** The small picture at once, and the file itself over it when it has come. */
function pictures(item) {
  const small = h("img", { class: "small", src: thumbUrl(item, 640), alt: "" });
  const full = h("img", { class: "full", src: fileUrl(item.id, FOREIGN.test(item.name)), alt: item.name, decoding: "async" });
  full.addEventListener("load", () => {
    full.classList.add("there");
    // Else the edges of a see-through picture show it.
    small.remove();
  });
  full.addEventListener("error", () => {
    if (!full.src.includes("as=jpeg")) full.src = fileUrl(item.id, true);
    else full.replaceWith(copyOf("gone"));
  });
  return [small, full];
}

function unplayable(item) {
  const told = copyOf("unplayable");
  Object.assign(told.querySelector("a"), { href: fileUrl(item.id), download: item.name });
  return told;
}

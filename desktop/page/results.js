/** The list that is shown: the newest items, or what a search brought, in its two steps. */

import { events, get } from "./api.js";
import { announce, button, byId, copyOf, h, partsOf } from "./dom.js";
import { count, monthsName, plural } from "./format.js";
import { months } from "./layout.js";
import { filtersOf, go, isFiltered, isSearch, listKey, noFilters, queryOf, scrolled } from "./state.js";

/** Hits of a search; more when one scrolls to their end. */
const FIRST = 200;
const MOST = 10_000;
/** The reranker's probability of a match; the server says by the same bound that nothing matches. */
const LIKELY = 0.5;
/** Items of the timeline at a time. */
const PAGE = 1000;

export class Results {
  #place = null;
  #cancel = new AbortController();
  #isLoading = false;
  #total = 0;

  /** `welcome`: makes what an empty library shows. `live`: the library's state. */
  constructor({ grid, calm, live, welcome }) {
    Object.assign(this, { grid, calm, live, welcome });
    grid.addEventListener("near-end", () => this.#more());
    live.addEventListener("changed", () => this.#changed());
    live.addEventListener("status", () => this.#loadingState());
  }

  /** What the items were found by, for asking about their moments; null in the timeline. */
  get query() {
    return this.#place && isSearch(this.#place) ? queryOf(this.#place) : null;
  }

  /** Show what a place asks for. */
  async show(place) {
    this.#cancel.abort();
    this.#cancel = new AbortController();
    const { signal } = this.#cancel;
    const isNew = !this.#place || listKey(place) !== listKey(this.#place);
    this.#place = place;
    this.#total = 0;
    this.#isLoading = true;
    this.calm.restart();
    this.#isStale = false;
    this.#offer(null);
    this.#busy(true);
    this.#loadingState();
    try {
      await (isSearch(place) ? this.#search(place, isNew, signal) : this.#timeline(place, isNew, signal));
    } catch (error) {
      if (!signal.aborted) this.#failed(error, isNew);
    } finally {
      if (!signal.aborted) {
        this.#isLoading = false;
        this.#busy(false);
      }
    }
  }

  /** Something else takes the list's place. */
  leave() {
    this.#cancel.abort();
    this.#place = null;
    this.#isLoading = this.#isStale = false;
    this.#offer(null);
    this.#busy(false);
    this.#loadingState();
  }

  /** Once more, whatever is shown. */
  again() {
    if (this.#place) this.show(this.#place);
  }

  async #timeline(place, isNew, signal) {
    const page = await get("api/items", { ...filtersOf(place), order: "newest", limit: PAGE }, { signal });
    this.#total = page.total;
    this.#title("Photos and videos");
    this.#list(page.items, { isNew, total: page.total });
    this.#saying(page.total ? plural(page.total, "item") : "");
    if (page.total) this.#notice(null);
    else if (isFiltered(place)) this.#nothing("Nothing passes these filters.");
    else this.#notice(this.welcome());
  }

  async #search(place, isNew, signal) {
    this.#title(titleOf(place));
    const params = { ...queryOf(place), ...filtersOf(place), limit: FIRST };
    for await (const [name, result] of events("api/events", params, signal)) {
      if (name === "found") {
        this.#found(result, isNew);
      } else if (name === "reranked") {
        this.#reranked(result);
      } else if (name === "failed") {
        // The first order stands; only the closer look is missing.
        const problem = result?.error?.message ?? "the model for it did not answer";
        if (!this.#total) throw new Error(problem);
        this.#saying(`${this.#howMany()} · not looked at more closely: ${problem}`);
      } else if (name === "done") return;
    }
  }

  #found(result, isNew) {
    this.#busy(false);
    this.#total = result.results.length;
    this.calm.restart();
    this.#list(result.results, { isNew, total: this.#total });
    if (!this.#total) {
      const isEmpty = this.live.status && !this.live.status.items;
      if (isEmpty) this.#notice(this.welcome());
      else this.#nothing(isFiltered(this.#place) ? "Nothing passes these filters." : "Nothing was found.");
      this.#saying("");
      return;
    }
    this.#notice(null);
    const step = result.reranked === false && !result.no_good_match ? " · looking closer …" : "";
    this.#saying(this.#howMany() + step);
    announce(`${this.#howMany()} found`);
    if (result.no_good_match) this.#noMatch();
  }

  #reranked(result) {
    const apply = () => {
      this.#offer(null);
      // Hits that scrolling brought since then stay, after the others.
      const ids = new Set(result.results.map((item) => item.id));
      const items = [...result.results, ...this.grid.items.filter((item) => !ids.has(item.id))];
      this.grid.show(items, { sections: this.#sections(items), moving: true });
      this.#saying(this.#howMany());
      if (result.no_good_match) this.#noMatch();
      else announce("Better order");
    };
    const isSame = result.results.every((item, i) => item.id === this.grid.items[i]?.id);
    if ((isSame && !result.no_good_match) || this.calm.isCalm) return apply();
    this.calm.when(apply);
    const scores = new Map(result.results.map((item) => [item.id, item.reranker_score]));
    for (const item of this.grid.items) item.reranker_score = scores.get(item.id);
    this.#saying(this.#howMany());
    return this.#offer(result.no_good_match ? "A closer look found no good match" : "Better order ready", () => {
      this.calm.restart();
      apply();
      scrollTo(0, 0);
      if (!result.no_good_match) this.grid.reveal(0);
    });
  }

  /** Said plainly, instead of a wall of pictures that match nothing. */
  #noMatch() {
    const { q, picture, like } = this.#place;
    const show = () => {
      this.#notice(null);
      byId("grid").hidden = false;
      this.#saying("The closest, though probably none of them matches");
      this.grid.reveal(0);
    };
    const box = copyOf("no-match", { show, filters: () => go(noFilters()) });
    if (q && !picture && !like) box.querySelector("b").textContent = `“${q}”`;
    box.querySelector("[data-act=filters]").hidden = !isFiltered(this.#place);
    this.#notice([box]);
    byId("grid").hidden = true;
    this.#saying("");
    announce(box.firstElementChild.innerText);
  }

  /** Why there is no list: in words, and what one may do. */
  #nothing(text, why = "") {
    const box = copyOf("nothing", { filters: () => go(noFilters()), again: () => this.again() });
    const [heading, reason, filters, again] = partsOf(box, "h2", "p", "[data-act=filters]", "[data-act=again]");
    heading.textContent = text;
    reason.textContent = why;
    filters.hidden = why || !isFiltered(this.#place);
    again.hidden = !why;
    this.#notice([box]);
  }

  #failed(error, isNew) {
    // The sign-in dialog is there.
    if (error.status === 401) return undefined;
    this.#saying("");
    // Tried again when the connection is back. What was found by other words is no answer.
    if (error.status === 0) {
      if (isNew) this.grid.show([]);
      return this.#saying(error.message);
    }
    // Without a time to come again, waiting changes nothing: a model that does not load says why.
    if (error.status === 503 && error.retryAfter) {
      const { signal } = this.#cancel;
      setTimeout(() => signal.aborted || this.again(), error.retryAfter * 1000);
      return this.#saying("The server is busy. Trying again …");
    }
    if (this.live.status?.items === 0) return this.#notice(this.welcome());
    const isGone = this.#place.picture && error.status === 404;
    this.grid.show([]);
    if (isGone) this.#nothing("That picture is no longer held.", "Drop or choose it again.");
    else this.#nothing("This search did not work.", error.message);
    return announce(error.message);
  }

  /** More of the same list, when one comes to its end. */
  async #more() {
    const have = this.grid.items.length;
    const place = this.#place;
    if (this.#isLoading || !have || !place || byId("grid").hidden) return;
    const isTimeline = !isSearch(place);
    if (isTimeline ? have >= this.#total : have < FIRST || have >= MOST || have < this.#asked) return;
    this.#isLoading = true;
    const { signal } = this.#cancel;
    try {
      if (isTimeline) {
        const params = { ...filtersOf(place), order: "newest", offset: have, limit: PAGE };
        const page = await get("api/items", params, { signal });
        if (!page.items.length) this.#total = have;
        this.#list([...this.grid.items, ...page.items], { total: page.total });
      } else {
        const limit = Math.min(MOST, have * 5);
        const params = { ...queryOf(place), ...filtersOf(place), limit, rerank: false };
        const { results } = await get("api/search", params, { signal });
        const known = new Set(this.grid.items.map((item) => item.id));
        this.#asked = limit;
        this.#list([...this.grid.items, ...results.filter((item) => !known.has(item.id))], {});
        this.#total = this.grid.items.length;
        this.#saying(this.#howMany());
      }
    } catch {
      // The end of the list is tried again when one scrolls there again.
    } finally {
      if (!signal.aborted) this.#isLoading = false;
    }
  }

  #asked = 0;
  #timer = 0;
  #wasReading = false;
  // The library changed since it was searched; null where nobody wants to know.
  #isStale = false;

  /** The library's content changed: the timeline follows when that disturbs nobody, a search is offered again. */
  #changed() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#follow(), 800);
  }

  async #follow() {
    const place = this.#place;
    if (!place || place.page || this.#isLoading) return;
    if (isSearch(place)) {
      if (!this.#total) this.again();
      else if (this.#isStale !== null) {
        this.#isStale = true;
        if (!byId("offer").firstChild) this.#offer(null);
      }
      return;
    }
    const { signal } = this.#cancel;
    const limit = Math.max(PAGE, Math.min(MOST, this.grid.items.length));
    try {
      const page = await get("api/items", { ...filtersOf(place), order: "newest", limit }, { signal });
      if (signal.aborted) return;
      const show = () => {
        this.#offer(null);
        this.#total = page.total;
        this.#list(page.items, { total: page.total, moving: this.grid.items.length > 0 });
        this.#saying(plural(page.total, "item"));
        if (page.total) this.#notice(null);
      };
      const now = () => {
        this.calm.restart();
        show();
      };
      if (!this.grid.items.length) show();
      else if (!this.calm.when(show)) this.#offer("The library has changed", now);
    } catch {
      // the next change, or the connection's return, brings it
    }
  }

  #list(items, { isNew = false, total = items.length, moving = false }) {
    byId("grid").hidden = false;
    const sections = this.#sections(items);
    if (!isNew && !moving) return this.grid.extend(items, { sections, total });
    this.grid.show(items, { sections, total, moving });
    if (!isNew) return undefined;
    this.#asked = 0;
    return scrollTo(0, scrolled());
  }

  /** The months of the timeline; in a search by words, where what the closer look likes ends. */
  #sections(items) {
    if (!isSearch(this.#place)) return months(items, monthsName);
    const end = this.#place.q ? items.findLastIndex((item) => item.reranker_score >= LIKELY) + 1 : 0;
    return end && typeof items[end]?.reranker_score === "number" ? [{ at: 0, title: "" }, { at: end, title: "Less likely from here on" }] : [];
  }

  #howMany() {
    const all = this.live.status?.items;
    // How many pass the filters is known where all of them are here.
    const isAll = this.#total >= all || (isFiltered(this.#place) && this.#total % FIRST);
    return `${isAll ? plural(this.#total, "item") : `The ${count(this.#total)} closest of ${plural(all, "item")}`}, best first`;
  }

  #loadingState() {
    const { indexing, model } = this.live.status ?? {};
    const { state = "idle", done, total } = indexing ?? {};
    const isReading = state !== "idle";
    document.body.classList.toggle("reading", isReading);
    const far = total ? `${count(done)} of ${count(total)} read so far` : "Still reading";
    byId("so-far").textContent = isReading && this.query ? far : "";
    // That nothing matches was said of what had been read.
    if (this.#wasReading && !isReading && !this.#isLoading && this.query && !byId("notice").hidden) this.again();
    this.#wasReading = isReading;
    if (!this.#isLoading || !this.#place || !isSearch(this.#place) || this.#total) return;
    if (model?.state !== "loading") return this.#saying("Searching …");
    const share = model.fraction > 0 && model.fraction < 1 ? ` ${Math.floor(model.fraction * 100)}%` : "";
    this.#saying(`Getting the model ready${model.step ? `: ${model.step}` : ""}${share} …`);
  }

  #title(text) {
    byId("title").textContent = text;
    document.title = text === "Photos and videos" ? "qvl-local" : `${text} · qvl-local`;
  }

  #saying(text) {
    if (byId("count").textContent !== text) byId("count").textContent = text;
  }

  #busy(is) {
    document.body.classList.toggle("busy", is);
    byId("grid").setAttribute("aria-busy", is);
  }

  /** What stands in the list's place; null for the list itself. */
  #notice(content) {
    const box = byId("notice");
    if (content === null && box.hidden) return;
    box.hidden = content === null;
    box.replaceChildren(...[content ?? []].flat().filter(Boolean));
    if (content !== null) this.#offer(null);
  }

  #offer(text, act, label = "Show") {
    if (!text && this.#isStale) return this.#offer("The library has changed", () => this.again(), "Search again");
    const dismiss = () => {
      this.#isStale = null;
      this.#offer(null);
    };
    const parts = text ? [h("span", {}, text), button("", label, act), button("close", "Not now", dismiss, { bare: true })] : [];
    return byId("offer").replaceChildren(...parts);
  }
}

function titleOf({ q, picture, like }) {
  if (picture || like) return q ? `Like this, but “${q}”` : `Similar to this ${like ? "one" : "picture"}`;
  return `“${q}”`;
}

/** The library as it is now: its state and its changes, told by the server, through losses of the connection. */

import { events, gate, get } from "./api.js";

/** The server says something every 15 s. */
const SILENCE_MS = 40_000;
const LONGEST_MS = 10_000;

/**
 * Fires "status", "changed", "lost" and "back". `status` is the last answer of /api/status, null at first.
 * Only a page that is seen listens: browsers open six connections to a server, for all of its pages together.
 */
export class Live extends EventTarget {
  status = null;
  isLost = false;
  #again = () => {};
  // Ends the connection that is open; null while the page is hidden.
  #cancel = null;

  /** Keep listening, for as long as the page is open. */
  async start() {
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) return this.#again();
      this.#cancel?.abort();
      this.#cancel = null;
    });
    for (let wait = 500; ; ) {
      const cancel = (this.#cancel = new AbortController());
      const { signal } = cancel;
      let silence = 0;
      const heard = () => {
        clearTimeout(silence);
        silence = setTimeout(() => cancel.abort(), SILENCE_MS);
      };
      try {
        heard();
        this.#told(await get("api/status", {}, { signal }));
        if (!document.hidden) {
          for await (const [name, data] of events("api/events", {}, signal)) {
            wait = 500;
            heard();
            if (name === "status") this.#told(data);
          }
        }
      } catch (error) {
        if (error.status === 401) await new Promise((resolve) => gate.addEventListener("signed-in", resolve, { once: true }));
        else if (this.#cancel) this.#lost();
      }
      clearTimeout(silence);
      await new Promise((resolve) => {
        this.#again = resolve;
        if (!document.hidden) setTimeout(resolve, wait);
      });
      wait = Math.min(LONGEST_MS, wait * 2);
    }
  }

  /** Try now instead of in a while. */
  again() {
    this.#again();
  }

  /** Take a status that another request brought. */
  async refresh() {
    this.#told(await get("api/status"));
  }

  #told(status) {
    const before = this.status ?? status;
    this.status = status;
    if (this.isLost) {
      this.isLost = false;
      this.#fire("back");
    } else if (status.generation !== before.generation) this.#fire("changed");
    this.#fire("status");
  }

  #lost() {
    if (this.isLost) return;
    // Nobody knows how far reading is.
    if (this.status) this.#told({ ...this.status, indexing: { state: "idle" } });
    this.isLost = true;
    this.#fire("lost");
  }

  #fire(name) {
    this.dispatchEvent(new Event(name));
  }
}

/** The library as it is now: its state and its changes, told by the server, through losses of the connection. */

import { events, gate, get } from "./api.js";

/** The server says something every 15 s. */
const SILENCE_MS = 40_000;
const LONGEST_MS = 10_000;

/** Fires "status", "changed", "lost" and "back". `status` is the last answer of /api/status, null at first. */
export class Live extends EventTarget {
  status = null;
  isLost = false;
  #again = () => {};

  /** Keep listening, for as long as the page is open. */
  async start() {
    for (let wait = 500; ; ) {
      const cancel = new AbortController();
      let silence = 0;
      const heard = () => {
        clearTimeout(silence);
        silence = setTimeout(() => cancel.abort(), SILENCE_MS);
      };
      try {
        heard();
        this.#told(await get("api/status", {}, { signal: cancel.signal }));
        for await (const [name, data] of events("api/events", {}, cancel.signal)) {
          wait = 500;
          heard();
          if (name === "status") this.#told(data);
          else if (name === "changed") this.dispatchEvent(new Event("changed"));
        }
      } catch (error) {
        if (error.status !== 401) this.#lost();
        else await new Promise((resolve) => gate.addEventListener("signed-in", resolve, { once: true }));
      }
      clearTimeout(silence);
      await new Promise((resolve) => {
        this.#again = resolve;
        setTimeout(resolve, wait);
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
    this.status = status;
    if (this.isLost) {
      this.isLost = false;
      this.dispatchEvent(new Event("back"));
    }
    this.dispatchEvent(new Event("status"));
  }

  #lost() {
    if (this.isLost) return;
    this.isLost = true;
    this.dispatchEvent(new Event("lost"));
  }
}

/**
 * Whether the tiles may move. They may not while somebody points at them, works among them with the keyboard,
 * has scrolled away from the top or looks at one of them: what one reaches for must stay where it is.
 */

/** Pixels; so little scrolling does not count. */
const TOP = 80;

export class Calm {
  #area;
  #touched = false;
  #wait = null;
  #timer = 0;

  constructor(area) {
    this.#area = area;
    for (const kind of ["pointermove", "pointerdown"]) area.addEventListener(kind, () => (this.#touched = true));
    area.addEventListener("pointerleave", () => {
      this.#touched = false;
      this.#soon();
    });
    area.addEventListener("focusout", () => this.#soon());
    document.addEventListener("close", () => this.#soon(), true);
    addEventListener("scroll", () => this.#soon(), { passive: true });
  }

  get isCalm() {
    const busy = this.#touched || this.#area.contains(document.activeElement);
    return !busy && scrollY <= TOP && !document.querySelector("dialog[open]");
  }

  /** A new list begins: a pointer that rests where it was is no sign that somebody points. */
  restart() {
    this.#touched = false;
    this.#wait = null;
  }

  /** Run `act` now or as soon as it disturbs nobody. Returns whether it ran at once. */
  when(act) {
    this.#wait = null;
    if (this.isCalm) {
      act();
      return true;
    }
    this.#wait = act;
    return false;
  }

  #soon() {
    clearTimeout(this.#timer);
    if (!this.#wait) return;
    this.#timer = setTimeout(() => {
      if (!this.#wait || !this.isCalm) return;
      const act = this.#wait;
      this.#wait = null;
      act();
    }, 300);
  }
}

/** Videos in the grid play silently while one points at them, from the moment that matched; pictures that move, move. */

import { fileUrl } from "./api.js";
import { h } from "./dom.js";

/** So that a pointer that only passes starts nothing. */
const AFTER_MS = 250;
const MOVING = /\.(gif|webp|apng)$/i;

export function previews(grid) {
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  let timer = 0;
  let tile = null;

  const stop = () => {
    clearTimeout(timer);
    tile?.querySelector(".live")?.remove();
    tile = null;
  };
  const start = (event) => {
    const next = event.target.closest(".tile");
    if (next === tile) return;
    stop();
    const item = next && grid.items.find(({ id }) => id === Number(next.dataset.id));
    const act = item?.kind === "video" ? play : MOVING.test(item?.name) && move;
    if (!act || still.matches || event.pointerType === "touch") return;
    tile = next;
    timer = setTimeout(() => act(next.firstElementChild, item, stop), AFTER_MS);
  };
  grid.list.addEventListener("pointerover", start);
  grid.list.addEventListener("pointerleave", stop);
  grid.list.addEventListener("focusin", start);
  grid.list.addEventListener("focusout", stop);
  grid.addEventListener("open", stop);
}

/** A picture with several frames: browsers play the file itself. */
function move(open, item, stop) {
  const picture = h("img", { class: "live", src: fileUrl(item.id), alt: "" });
  picture.addEventListener("load", () => picture.classList.add("there"));
  picture.addEventListener("error", stop);
  open.append(picture);
}

function play(open, item, stop) {
  const from = item.start_s ?? 0;
  const video = h("video", { class: "live", src: fileUrl(item.id), playsinline: true, "aria-hidden": "true", tabindex: -1 });
  // The attribute counts for the parser only.
  video.muted = true;
  video.addEventListener("loadedmetadata", () => (video.currentTime = from));
  video.addEventListener("seeked", () => video.play().catch(stop), { once: true });
  video.addEventListener("timeupdate", () => {
    if (item.end_s > from && video.currentTime >= item.end_s) video.currentTime = from;
  });
  video.addEventListener("ended", () => (video.currentTime = from));
  video.addEventListener("playing", () => video.classList.add("there"));
  video.addEventListener("error", stop);
  open.append(video);
}

/** A video's moments as bars: the higher, the closer to what was searched. Press one to go there. */

import { h } from "./dom.js";
import { clock } from "./format.js";

/** @param {{start_s:number, end_s:number, score:number}[]} moments  @param {HTMLVideoElement} video */
export function momentBar(moments, video, item) {
  const scores = moments.map(({ score }) => score);
  const [low, high] = [Math.min(...scores), Math.max(...scores)];
  const end = Math.max(video.duration || 0, moments.at(-1).end_s);
  const bars = moments.map(({ start_s, end_s, score }) => {
    const share = high > low ? (score - low) / (high - low) : 1;
    const label = `${clock(start_s)} to ${clock(end_s)}, similarity ${score.toFixed(2)}${score === high ? ", the closest" : ""}`;
    const bar = h("button", { type: "button", class: score === high ? "best" : "", "aria-label": label, title: label });
    bar.style.left = `${(start_s / end) * 100}%`;
    bar.style.width = `${((end_s - start_s) / end) * 100}%`;
    bar.style.setProperty("--high", `${Math.round(18 + 82 * share)}%`);
    bar.addEventListener("click", () => {
      video.currentTime = start_s;
      video.play().catch(() => {});
    });
    return bar;
  });
  const mark = h("span", { class: "now", "aria-hidden": "true" });
  const follow = () => {
    const now = video.currentTime;
    mark.style.left = `${(now / end) * 100}%`;
    bars.forEach((bar, i) => bar.toggleAttribute("aria-current", now >= moments[i].start_s && now < moments[i].end_s));
  };
  video.addEventListener("timeupdate", follow);
  video.addEventListener("seeked", follow);
  follow();
  const found = item.start_s ? ` · found at ${clock(item.start_s)}` : "";
  return [h("p", {}, `How close each moment comes${found}`), h("div", {}, ...bars, mark)];
}

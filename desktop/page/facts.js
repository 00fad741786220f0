/** What is known of an item, and why it was found, in plain words. */

import { copyOf, h } from "./dom.js";
import { bytes, clock, coordinates, momentName, percent, verdict } from "./format.js";

const NEAR_KM = 5;

/** A list of facts. `near(text)`: look for what was taken close by. */
export function factsOf(media, { near }) {
  const size = [media.width && `${media.width} × ${media.height}`, media.size && bytes(media.size)];
  const hasPlace = media.latitude !== null && media.latitude !== undefined;
  const there = () => near(`${media.latitude},${media.longitude},${NEAR_KM}`);
  const rows = [
    ["Taken", media.taken_at && momentName(media.taken_at)],
    ["Length", media.duration_s && clock(media.duration_s)],
    ["Camera", media.camera],
    ["Place", hasPlace && [media.place, h("small", {}, coordinates(media.latitude, media.longitude))]],
    ["Size", size.filter(Boolean).join(", ")],
    ["File", media.path && [media.path.slice(0, -media.name.length), h("wbr"), media.name]],
    ["With it", media.companions?.map(({ name }) => name).join(", ")],
  ].filter(([, value]) => value);
  const nearby = hasPlace && h("button", { type: "button", class: "link", onclick: there }, `More from within ${NEAR_KM} km`);
  return [
    h("h3", {}, "About"),
    h("dl", {}, ...rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, ...[value].flat())])),
    nearby || "",
  ];
}

/** Both scores in words; empty for an item that was not searched. */
export function whyOf(item, items, isSearch) {
  if (!isSearch || typeof item.embedding_score !== "number") return [];
  const all = items.map((other) => other.embedding_score).filter((score) => typeof score === "number");
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const closer = all.filter((score) => score > item.embedding_score).length;
  const share = high > low ? (item.embedding_score - low) / (high - low) : 1;
  const looked = typeof item.reranker_score === "number";
  return [
    h("h3", {}, "Why it is here"),
    score("Close in meaning", item.embedding_score.toFixed(2), share, `${closer || "None"} of the ${all.length} shown are closer.`),
    looked
      ? score("On a closer look", percent(item.reranker_score), item.reranker_score, `${verdict(item.reranker_score)}.`)
      : copyOf("unjudged"),
  ];
}

function score(name, value, share, words) {
  const fill = h("span");
  fill.style.width = `${Math.round(Math.min(1, Math.max(0.02, share)) * 100)}%`;
  return h("div", { class: "score" }, h("p", {}, h("span", {}, name), h("b", {}, value)), h("div", { class: "meter", "aria-hidden": "true" }, fill), h("p", { class: "quiet" }, words));
}

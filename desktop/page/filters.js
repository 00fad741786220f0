/** The row of filters: what kind, when, where, in which folder, by which camera. */

import { get, thumbUrl } from "./api.js";
import { byId, copyOf, h } from "./dom.js";
import { coordinates, count, plural } from "./format.js";
import { histogram, rangeName } from "./histogram.js";
import { filtersOf, go, isFiltered, noFilters, place, watch } from "./state.js";

/** Km. */
const DISTANCES = [1, 5, 20, 100, 500];

export function filterBar(live) {
  const bar = byId("filters");
  // Of folders, by id, as they are met.
  const names = new Map();
  const kinds = [...bar.querySelectorAll(".segments button")];
  const [date, near, folder, camera] = [
    menu("Date", ["after", "before"], dateMenu),
    menu("Place", ["near", "place"], placeMenu),
    menu("Folder", ["under"], (facets) => folderMenu(facets, names)),
    menu("Camera", ["camera"], cameraMenu),
  ];
  for (const one of kinds) one.addEventListener("click", () => go({ kind: one.value, view: "" }));
  byId("clear-filters").addEventListener("click", () => go(noFilters()));

  const show = (now) => {
    bar.hidden = Boolean(now.page) || live.status?.items === 0;
    for (const one of kinds) one.setAttribute("aria-pressed", now.kind === one.value);
    byId("clear-filters").hidden = !isFiltered(now);
    date(rangeName(now.after, now.before));
    near(now.near ? `Within ${now.near.split(",")[2]} km` : now.place.join(" · "));
    camera(now.camera.join(", "));
    folder(now.under.map((id) => names.get(id) ?? "1 folder").join(", "));
  };
  watch(show);
  live.addEventListener("status", () => show(place()));
  show(place());
}

/**
 * What a button of the bar opens. `own`: its filters, which do not narrow what it offers. Returns a function that
 * labels the button with its filters' value.
 */
function menu(name, own, fill) {
  const box = byId(`menu-${name.toLowerCase()}`);
  const opener = box.previousElementSibling;
  box.addEventListener("toggle", async (event) => {
    if (event.newState !== "open") return box.replaceChildren();
    box.replaceChildren(h("p", { class: "quiet" }, "One moment …"));
    put(box, opener);
    try {
      const others = { ...filtersOf(place()), ...Object.fromEntries(own.map((filter) => [filter, ""])) };
      const content = fill(await get("api/facets", others)).filter(Boolean);
      box.replaceChildren(...(content.length ? content : [h("p", { class: "quiet" }, box.dataset.nothing)]));
    } catch (error) {
      box.replaceChildren(h("p", {}, error.message));
    }
    put(box, opener);
    return box.querySelector("button, input, select, [tabindex]")?.focus({ preventScroll: true });
  });
  return (value) => {
    opener.querySelector("span").textContent = value || name;
    opener.classList.toggle("on", Boolean(value));
    opener.setAttribute("aria-label", value ? `${name}: ${value}` : name);
  };
}

/** Below its opener, and inside the window. */
function put(box, opener) {
  const at = opener.getBoundingClientRect();
  box.style.top = `${at.bottom + 6}px`;
  box.style.left = `${Math.max(8, Math.min(at.left, innerWidth - box.offsetWidth - 8))}px`;
}

function dateMenu(facets) {
  if (!facets.months.length) return [];
  const { after, before } = place();
  const change = (range) => go({ ...range, view: "" });
  const note = facets.undated ? `${plural(facets.undated, "item")} without a date` : "";
  return [histogram(facets.months, { after, before }, change), h("p", { class: "quiet" }, note)];
}

function cameraMenu(facets) {
  return choices(facets.cameras, "camera", ({ name }) => name, ({ name }) => [name]);
}

function folderMenu(facets, names) {
  for (const folder of facets.folders) names.set(String(folder.id), folder.name);
  const text = ({ name, path, is_root }) => (is_root ? [name, h("small", {}, path)] : [`› ${name}`]);
  return choices(facets.folders, "under", ({ id }) => String(id), text);
}

/** When somebody was there: "2019", "2019 – 2023". */
function yearsOf({ first, last }) {
  return [...new Set([first, last].filter(Boolean).map((date) => date.slice(0, 4)))].join(" – ");
}

/** Boxes to tick, with how many items each has. */
function choices(entries, filter, valueOf, textOf) {
  const chosen = new Set(place()[filter]);
  const change = ({ target }) => {
    if (target.checked) chosen.add(target.value);
    else chosen.delete(target.value);
    go({ [filter]: [...chosen], view: "" });
  };
  const lines = entries.map((entry) => {
    const value = valueOf(entry);
    const box = h("input", { type: "checkbox", value, checked: chosen.has(value), onchange: change });
    return h("label", {}, box, ...lineOf(entry, textOf(entry)));
  });
  return lines.length ? [h("div", { class: "choices" }, ...lines)] : [];
}

/** What a line of a menu shows: a picture of a place, words, how many. */
const lineOf = ({ id, km, count: n }, words) => [
  km && h("img", { src: thumbUrl({ id }, 100), alt: "", loading: "lazy" }),
  h("span", { class: "name" }, ...words),
  h("span", { class: "n" }, count(n)),
];

function placeMenu({ places, place_names }) {
  if (!places.length) return [];
  const [named, others] = [true, false].map((is) => places.filter(({ name }) => Boolean(name) === is));
  const words = (spot) => [spot.name ?? coordinates(spot.latitude, spot.longitude), h("small", {}, yearsOf(spot))];
  return [
    ...choices(named, "place", ({ name }) => name, words),
    ...(others.length || place().near ? spotsMenu(others, words) : []),
    !place_names && copyOf("no-names"),
  ];
}

/** Places without a name: all within a distance of one. */
function spotsMenu(spots, words) {
  const [latitude, longitude, km] = place().near.split(",").map(Number);
  const set = (lat, lon, radius) => go({ near: `${lat},${lon},${radius}`, view: "" });
  const select = h("select", { id: "near-km", onchange: () => chosen && set(chosen.latitude, chosen.longitude, select.value) });
  const now = Math.ceil(km || 20);
  for (const step of [...new Set([...DISTANCES, now])].sort((a, b) => a - b)) {
    select.append(h("option", { value: step, selected: step === now }, `${step} km`));
  }
  let chosen = place().near ? { latitude, longitude } : null;
  const isChosen = (spot) => chosen?.latitude === spot.latitude && chosen?.longitude === spot.longitude;
  const rows = spots.map((spot) => {
    const row = h("button", { type: "button", class: "spot", "aria-pressed": String(isChosen(spot)) }, ...lineOf(spot, words(spot)));
    row.addEventListener("click", () => {
      chosen = isChosen(spot) ? null : spot;
      for (const other of rows) other.setAttribute("aria-pressed", chosen !== null && other === row);
      if (chosen) set(spot.latitude, spot.longitude, Math.max(Number(select.value), Math.ceil(spot.km)));
      else go({ near: "", view: "" });
    });
    return row;
  });
  return [h("p", { class: "row" }, h("label", { for: "near-km" }, "Within"), select, "of"), h("div", { class: "choices" }, ...rows)];
}

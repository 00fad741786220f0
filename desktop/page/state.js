/**
 * Where one is: what is searched, filtered and open, kept in the address behind "#", which no server sees.
 */

const LISTS = ["under", "camera", "place"];
const FILTERS = ["kind", "after", "before", ...LISTS, "near"];
const QUERY = ["q", "picture", "like"];
const ALL = [...QUERY, ...FILTERS, "page", "view"];

/** @typedef {{q:string, picture:string, like:string, kind:string, after:string, before:string, under:string[],
 *   camera:string[], place:string[], near:string, page:string, view:string}} Place */

/** @returns {Place} */
export function parse(hash) {
  const params = new URLSearchParams(hash.replace(/^#/, ""));
  const place = {};
  for (const name of ALL) place[name] = LISTS.includes(name) ? params.getAll(name) : (params.get(name) ?? "");
  return place;
}

/** @param {Place} place */
export function write(place) {
  const params = new URLSearchParams();
  for (const name of ALL) for (const value of [place[name]].flat()) if (value) params.append(name, value);
  return `#${params}`;
}

const pick = (place, names) => Object.fromEntries(names.map((name) => [name, place[name]]));

/** The filters of a place, named as the server names them. */
export const filtersOf = (place) => pick(place, FILTERS);

/** The query of a place: words, a picture, an item of the library. */
export const queryOf = (place) => pick(place, QUERY);

export const isSearch = (place) => QUERY.some((name) => place[name]);
export const isFiltered = (place) => FILTERS.some((name) => place[name].length);
export const noFilters = () => pick(parse(""), FILTERS);

/** What decides on the list that is shown: all but the open item. */
export const listKey = (place) => write({ ...place, view: "" });

let now = parse(location.hash);
const listeners = new Set();

export const place = () => now;

/** `listener(place, before)` hears of every change; the back button changes, too. */
export function watch(listener) {
  listeners.add(listener);
}

/** Go elsewhere: `changes` to the place. `replace` leaves no step to go back to. */
export function go(changes, { replace = false } = {}) {
  const hash = write({ ...now, ...changes });
  if (hash !== write(now)) {
    const address = hash === "#" ? location.pathname + location.search : hash;
    if (replace) history.replaceState(history.state, "", address);
    else {
      history.replaceState({ ...history.state, top: scrollY }, "");
      history.pushState({ depth: depth() + 1 }, "", address);
    }
  }
  arrive();
}

/** How many steps of ours one can go back. */
export const depth = () => history.state?.depth ?? 0;

/** How far one had scrolled here before going on to elsewhere. */
export const scrolled = () => history.state?.top ?? 0;

function arrive() {
  const before = now;
  now = parse(location.hash);
  for (const listener of listeners) listener(now, before);
}

/** The list is not there yet when the browser would scroll. */
history.scrollRestoration = "manual";
addEventListener("popstate", arrive);

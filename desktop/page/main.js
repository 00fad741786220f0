/** Puts the page together: who hears of what. */

import { get } from "./api.js";
import { byId, copyOf, keep, kept } from "./dom.js";
import { Calm } from "./calm.js";
import { Duplicates } from "./duplicates.js";
import { filterBar } from "./filters.js";
import { folderForm } from "./folders.js";
import { Grid } from "./grid.js";
import { Live } from "./live.js";
import { libraryButton, openPanel } from "./panel.js";
import { previews } from "./preview.js";
import { Results } from "./results.js";
import { searchBox } from "./searchbox.js";
import { Selection, selectionBar } from "./selection.js";
import { signIn } from "./signin.js";
import { go, listKey, place, watch } from "./state.js";
import { Viewer } from "./viewer.js";

const live = new Live();
const selection = new Selection();
const grid = new Grid(byId("grid"), selection);
const results = new Results({ grid, calm: new Calm(byId("grid")), live, welcome });
const duplicates = new Duplicates(selection);
const viewer = new Viewer({
  itemsFor: (id) => (place().page === "duplicates" ? duplicates.itemsFor(id) : grid.items),
  query: () => (place().page ? null : results.query),
  live,
  selection,
  closed(id) {
    const index = grid.items.findIndex((item) => item.id === id);
    if (index >= 0 && !place().page) grid.reveal(index);
  },
});

/** What an empty library shows: what this is, and how to begin. */
function welcome() {
  if (live.status?.indexing.state === "running") return [copyOf("reading", { show: () => openPanel(live) })];
  return [copyOf("welcome"), folderForm(() => live.refresh())];
}

function show(now, before) {
  if (!before || listKey(now) !== listKey(before)) {
    const isDuplicates = now.page === "duplicates";
    byId("groups").hidden = !isDuplicates;
    byId("grid").hidden = isDuplicates;
    byId("notice").hidden = true;
    if (isDuplicates) {
      results.leave();
      duplicates.show();
    } else results.show(now).then(() => viewer.relist());
  }
  viewer.follow(now);
}

/** Of the two buttons, the style sheet shows the one that changes something. */
function themeButtons() {
  for (const theme of ["dark", "light"]) {
    document.querySelector(`.to-${theme}`).addEventListener("click", () => {
      document.documentElement.dataset.theme = theme;
      keep("qvl-theme", theme);
      document.querySelector(`.to-${theme === "dark" ? "light" : "dark"}`).focus();
    });
  }
}

function connection() {
  const banner = byId("banner");
  banner.lastElementChild.addEventListener("click", () => live.again());
  live.addEventListener("lost", () => (banner.hidden = false));
  live.addEventListener("back", () => {
    banner.hidden = true;
    results.again();
  });
}

/** The welcome shows whether reading has begun. */
function welcomeFollows() {
  let was = "";
  live.addEventListener("status", () => {
    const { items, indexing } = live.status;
    const is = `${items === 0} ${indexing.state === "running"}`;
    if (is !== was && was && (items === 0 || was.startsWith("true")) && !place().page) results.again();
    was = is;
  });
}

/** Who searches photos of their own with the built-in model is told, until they say that they know. */
function modelHint() {
  const hint = byId("hint");
  hint.lastElementChild.addEventListener("click", () => {
    keep("qvl-hint", "known");
    hint.remove();
  });
  let had = 0;
  live.addEventListener("status", async () => {
    const { items, model } = live.status;
    if (model.name !== "tiny") hint.hidden = true;
    if (model.name !== "tiny" || items === had || !hint.hidden) return;
    had = items;
    const { folders } = await get("api/folders").catch(() => ({ folders: [] }));
    // The demo's own folder.
    hint.hidden = folders.every(({ name }) => name === "Sample pictures");
  });
  if (kept("qvl-hint")) hint.remove();
}

searchBox({ again: () => results.again(), leave: () => grid.reveal(0) });
filterBar(live);
selectionBar(selection);
previews(grid);
libraryButton(live);
themeButtons();
connection();
welcomeFollows();
modelHint();
signIn(() => show(place(), null));
byId("skip").addEventListener("click", () => (grid.items.length ? grid.reveal(grid.current) : byId("title").focus()));
grid.addEventListener("open", ({ detail }) => go({ view: String(grid.items[detail].id) }));
watch(show);
live.start();
show(place(), null);

/** Folders of the library: listed, added, forgotten. Forgetting never touches a file. */

import { get, send } from "./api.js";
import { button, copyOf, h, icon, partsOf, toast } from "./dom.js";
import { count, plural } from "./format.js";

/** A form that adds a folder: typed, found by looking around, or chosen in the window's own dialog. */
export function folderForm(added) {
  const form = copyOf("folder-form");
  const [around, input, problem] = partsOf(form, ".row", "input", ".problem");
  const host = window.qvlWindow;

  const attempt = async (act) => {
    problem.textContent = "";
    try {
      await act();
    } catch (error) {
      problem.textContent = error.message;
    }
  };
  const add = (folder) =>
    attempt(async () => {
      await send("POST", "api/folders", folder);
      input.value = "";
      toast("Added. Its pictures appear as they are read.");
      look([]);
      added();
    });
  const choose = () =>
    attempt(async () => {
      const path = await host.pickFolder();
      if (path) await add({ path });
    });
  /** Show the folders below the last of `trail`; where looking begins when it is empty. */
  const look = (trail) =>
    attempt(async () => {
      const here = trail.at(-1);
      const { places } = await get(`api/places${here ? `/${here.id}` : ""}`);
      const had = around.contains(document.activeElement);
      around.replaceChildren(
        ...(here
          ? [
              button("left", "Back", () => look(trail.slice(0, -1)), { bare: true }),
              button("plus", `Add “${here.name}”`, () => add({ place: here.id }), { class: "button main", title: here.path }),
            ]
          : [host && button("folder", "Choose a folder …", choose)].filter(Boolean)),
        ...places.map((place) => button("folder", labelOf(place), () => look([...trail, place]), { title: place.path })),
      );
      if (had) around.querySelector(".main, button")?.focus();
    });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    // File managers copy a path in quotes.
    add({ path: input.value.trim().replace(/^(["'])(.+)\1$/, "$2") });
  });
  look([]);
  return form;
}

/** "Pictures · 1,204"; counting ends at some thousands. */
const labelOf = ({ name, count: n }) => (n ? `${name} · ${count(n)}${n % 1000 ? "" : "+"}` : name);

/** The folders of the library, each with a way to forget it. */
export async function folderList(changed) {
  const { folders } = await get("api/folders");
  if (!folders.length) return [h("p", { class: "quiet" }, "No folders yet.")];
  return [h("ul", { class: "folders" }, ...folders.map((folder) => line(folder, changed)))];
}

function line({ id, name, path, items, available, note }, changed) {
  const forget = async () => {
    try {
      await send("DELETE", `api/folders/${id}`);
      toast(`Forgotten: ${path}. Its files are where they were.`);
    } catch (error) {
      toast(error.message);
    }
    changed();
  };
  const ask = () => {
    const box = copyOf("forget", { forget, keep: () => row.replaceChildren(...usual) });
    box.querySelector("b").textContent = name;
    box.querySelector("span").textContent = plural(items, "item");
    row.replaceChildren(box);
    row.querySelector("[data-act=keep]").focus();
  };
  const about = [path, !available && "not there just now", note].filter(Boolean).join(" · ");
  const usual = [
    icon(available ? "folder" : "warn"),
    h("span", { class: "name" }, name, h("small", {}, about)),
    h("span", { class: "n" }, plural(items, "item")),
    button("close", `Forget ${name}`, ask, { bare: true }),
  ];
  const row = h("li", {}, ...usual);
  return row;
}

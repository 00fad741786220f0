/** Folders of the library: listed, added, forgotten. Forgetting never touches a file. */

import { get, send } from "./api.js";
import { button, h, icon, toast } from "./dom.js";
import { plural } from "./format.js";

/** A form that adds a folder. `added` is called after. The server suggests places and may offer its own dialog. */
export function folderForm(live, added) {
  const input = h("input", {
    name: "path", "aria-label": "Folder to add", placeholder: "Path of a folder, such as ~/Pictures", autocomplete: "off", spellcheck: false, required: true,
  });
  const problem = h("p", { class: "problem", role: "alert" });
  const places = h("span", { class: "row", "aria-label": "Suggestions", role: "group", hidden: true });
  const add = async (path) => {
    problem.textContent = "";
    try {
      await send("POST", "api/folders", { path });
      input.value = "";
      toast("Added. Its pictures appear here as they are read.");
      added();
    } catch (error) {
      input.value = path;
      problem.textContent = error.message;
    }
  };
  const choose = async () => {
    try {
      const { path } = (await send("POST", "api/pick-folder")) ?? {};
      if (path) await add(path);
    } catch (error) {
      problem.textContent = error.message;
    }
  };
  const form = h(
    "form",
    {
      class: "add",
      onsubmit: (event) => {
        event.preventDefault();
        add(input.value.trim());
      },
    },
    h("div", {}, input, h("button", { class: "button main", type: "submit" }, icon("plus"), h("span", {}, "Add folder"))),
    h("p", { class: "row" }, live.status?.can_pick_folder && button("folder", "Choose a folder …", choose), places),
    problem,
  );
  suggest(places, add);
  return form;
}

async function suggest(box, add) {
  try {
    const { places } = await get("api/places");
    box.replaceChildren(...places.map(({ name, path }) => button("folder", name, () => add(path), { title: path })));
    box.hidden = !places.length;
  } catch {
    // then one types
  }
}

/** The folders of the library, each with a way to forget it. */
export async function folderList(changed) {
  const { folders } = await get("api/folders");
  if (!folders.length) return [h("p", { class: "quiet" }, "No folders yet.")];
  return [h("ul", { class: "folders" }, ...folders.map((folder) => line(folder, changed)))];
}

function line(folder, changed) {
  const forget = async () => {
    try {
      await send("DELETE", `api/folders/${folder.id}`);
      toast(`Forgotten: ${folder.path}. The files are where they were.`);
    } catch (error) {
      toast(error.message);
    }
    changed();
  };
  const row = h("li", {});
  const ask = () => {
    const keep = button("", "Keep", () => row.replaceChildren(...usual));
    row.replaceChildren(h("span", { class: "name" }, "Forget this folder? Its files stay as they are."), button("", "Forget", forget), keep);
    keep.focus();
  };
  const name = folder.name || folder.path.split(/[\\/]/).filter(Boolean).at(-1) || folder.path;
  const items = folder.count ?? folder.items;
  const gone = folder.missing ? " · not found just now" : "";
  const usual = [
    icon("folder"),
    h("span", { class: "name" }, name, h("small", {}, folder.path + gone)),
    h("span", { class: "n" }, items === undefined ? "" : plural(items, "item")),
    button("close", `Forget ${name}`, ask, { bare: true }),
  ];
  row.append(...usual);
  return row;
}

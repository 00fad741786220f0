/** The search box: words, a picture or both, with the searches of late. */

import { ask } from "./api.js";
import { announce, button, byId, h, toast } from "./dom.js";
import { recentList } from "./recent.js";
import { go, place, watch } from "./state.js";

/** Pixels of the picture in the box, for screens of double density. */
const SIDE = 56;

/** `again`: search once more for what is already searched. `leave`: go to what was found. */
export function searchBox({ again, leave }) {
  const form = byId("search");
  const input = byId("query");
  const chip = byId("chip");
  const clear = byId("clear");
  const { placeholder } = input;
  // What the server calls a picture -> a small canvas of it.
  const pictures = new Map();
  const recent = recentList(input, (text) => {
    input.value = text;
    submit();
  }, leave);

  function submit(changes = {}) {
    const q = input.value.trim();
    const next = { picture: place().picture, like: place().like, ...changes, q, page: "", view: "" };
    recent.close();
    if (q) recent.add(q);
    const before = location.hash;
    go(next);
    if (location.hash === before && (q || next.picture || next.like)) again();
  }

  async function searchBy(file) {
    if (!file.type.startsWith("image/") && !/\.(hei[cf]|tiff?)$/i.test(file.name)) {
      return toast(`${file.name || "That"} is not a picture.`);
    }
    document.body.classList.add("busy");
    try {
      const headers = { "Content-Type": file.type || "application/octet-stream" };
      const answer = await (await ask("api/picture", { method: "POST", headers, body: file })).json();
      pictures.set(answer.picture, await small(file));
      submit({ picture: answer.picture, like: "" });
      input.focus();
    } catch (error) {
      document.body.classList.remove("busy");
      toast(`This cannot be searched by: ${error.message.replace("The picture: ", "")}`);
    }
  }

  function show({ q, picture, like, page }) {
    if (document.activeElement !== input || q) input.value = q;
    clear.hidden = !(input.value || picture || like);
    input.placeholder = picture || like ? "Add words: like this, but …" : placeholder;
    byId("to-duplicates").toggleAttribute("aria-current", page === "duplicates");
    chip.hidden = !(picture || like);
    if (chip.hidden) return chip.replaceChildren();
    const shown = like ? h("img", { src: `thumb/${like}?w=320`, alt: "" }) : (pictures.get(picture) ?? h("canvas"));
    const drop = button("close", "Search without this picture", () => submit({ picture: "", like: "" }), { bare: true });
    return chip.replaceChildren(shown, drop);
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  clear.addEventListener("click", () => {
    input.value = "";
    go({ q: "", picture: "", like: "" });
    input.focus();
  });
  input.addEventListener("input", () => (clear.hidden = !(input.value || !chip.hidden)));
  byId("choose").addEventListener("click", () => byId("file").click());
  byId("file").addEventListener("change", (event) => {
    if (event.target.files[0]) searchBy(event.target.files[0]);
    // So that the same file may be chosen again.
    event.target.value = "";
  });
  document.addEventListener("paste", (event) => {
    const file = [...event.clipboardData.files].find(({ type }) => type.startsWith("image/"));
    if (file && !document.querySelector("dialog[open]")) {
      event.preventDefault();
      searchBy(file);
    }
  });
  document.addEventListener("keydown", (event) => {
    const writes = event.target.closest("input, textarea, select, dialog");
    if (event.key !== "/" || writes || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    input.focus();
    input.select();
  });
  dropping(searchBy);
  watch(show);
  show(place());
}

/** Take a picture that is dropped anywhere on the page. */
function dropping(take) {
  const hasFile = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!hasFile(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
    if (!document.body.classList.contains("dropping")) announce("Drop the picture to search by it");
    document.body.classList.add("dropping");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dropping");
  });
  document.addEventListener("drop", (event) => {
    document.body.classList.remove("dropping");
    if (!hasFile(event)) return;
    event.preventDefault();
    document.querySelector("dialog[open]")?.close();
    take(event.dataTransfer.files[0]);
  });
}

/** A canvas of a picture, for the box; an empty one where the browser cannot read it. */
async function small(file) {
  const canvas = h("canvas", { width: SIDE, height: SIDE });
  try {
    const bitmap = await createImageBitmap(file);
    const scale = SIDE / Math.min(bitmap.width, bitmap.height);
    const [width, height] = [bitmap.width * scale, bitmap.height * scale];
    canvas.getContext("2d").drawImage(bitmap, (SIDE - width) / 2, (SIDE - height) / 2, width, height);
  } catch {
    // HEIC and the like: the server reads them, most browsers do not
  }
  return canvas;
}

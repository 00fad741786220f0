/** The library's panel: what is being read, which folders, what could not be read, which model. */

import { get, send } from "./api.js";
import { button, byId, dialog, h, partsOf, toast } from "./dom.js";
import { folderForm, folderList } from "./folders.js";
import { count, plural, roughly } from "./format.js";

/** What the built-in model cannot do. */
export const DRAWN_ONLY = "The built-in model only knows drawn sample scenes. For your own photos start with --model 2b.";

/** How far indexing is, from 0 to 1. */
export const shareOf = ({ done, total }) => (total ? Math.min(1, done / total) : 0);

/** The button in the header says in a word what goes on; a press opens the panel. */
export function libraryButton(live) {
  const opener = byId("to-library");
  opener.addEventListener("click", () => openPanel(live));
  live.addEventListener("status", () => {
    const { indexing, failed } = live.status;
    const share = Math.floor(shareOf(indexing) * 100);
    const words = { running: indexing.total ? `Reading ${share}%` : "Looking …", paused: `Paused ${share}%` };
    byId("library-state").textContent = words[indexing.state] ?? "Library";
    opener.classList.toggle("working", indexing.state === "running");
    opener.classList.toggle("trouble", failed > 0);
    opener.setAttribute("aria-label", byId("library-state").textContent + (failed ? `, ${failed} could not be read` : ""));
    opener.title = failed ? `${plural(failed, "file")} could not be read` : "";
  });
}

export function openPanel(live) {
  const box = dialog("panel");
  const [progress, folders, failures, model] = partsOf(box, ".progress", ".list", ".failed", ".model");
  const fill = async () => {
    try {
      folders.replaceChildren(...(await folderList(fill)));
      const answer = await get("api/failures");
      failures.hidden = !answer.failures.length;
      failures.querySelector("h3").textContent = `${plural(answer.failures.length, "file")} could not be read`;
      failures.querySelector("ul").replaceChildren(...answer.failures.map(failureLine));
    } catch (error) {
      if (box.isConnected) toast(error.message);
    }
  };
  let failed = live.status?.failed;
  const show = () => {
    const { status } = live;
    if (!status) return;
    progressView(progress, status);
    model.textContent = modelText(status.model) + (status.model.name === "tiny" ? `. ${DRAWN_ONLY}` : "");
    if (status.failed !== failed) fill();
    failed = status.failed;
  };
  const changed = () => fill();
  live.addEventListener("status", show);
  live.addEventListener("changed", changed);
  box.addEventListener("close", () => {
    live.removeEventListener("status", show);
    live.removeEventListener("changed", changed);
  });
  folders.after(folderForm(fill));
  show();
  fill();
}

/** Progress, drawn anew only where it changed: what has the focus keeps it. */
function progressView(box, status) {
  const { indexing } = status;
  const { state, done, total } = indexing;
  const stage = `${state} ${total > 0}`;
  if (box.dataset.stage !== stage) {
    box.dataset.stage = stage;
    const act = (action) => () => send("POST", "api/index", { action }).catch((error) => toast(error.message));
    const hadFocus = box.contains(document.activeElement);
    box.replaceChildren(
      h("p", { class: "state" }),
      state === "idle" ? "" : h("progress", { max: 1, "aria-label": "Progress" }),
      h("p", { class: "quiet at" }),
      h("p", { class: "row" }, ...buttonsFor(state, act)),
    );
    if (hadFocus) box.querySelector("button")?.focus();
  }
  const say = (selector, text) => (box.querySelector(selector).textContent = text);
  if (state === "idle") {
    const { photos, videos } = status;
    say(".state", `${plural(photos, "photo")} and ${plural(videos, "video")}, ready to be found`);
    return say(".at", indexing.error ?? (status.watching ? "New and changed files are noticed by themselves." : ""));
  }
  const bar = box.querySelector("progress");
  if (total) bar.value = shareOf(indexing);
  else bar.removeAttribute("value");
  const soFar = total ? `${count(done)} of ${count(total)}` : count(done);
  say(".state", `${state === "paused" ? "Paused at" : "Reading"} ${soFar}`);
  const details = [
    state === "running" && indexing.per_s > 0 && `${indexing.per_s.toFixed(indexing.per_s < 10 ? 1 : 0)} a second`,
    state === "running" && indexing.eta_s > 0 && `${roughly(indexing.eta_s)} left`,
    indexing.path_name,
  ];
  return say(".at", details.filter(Boolean).join(" · "));
}

function buttonsFor(state, act) {
  if (state === "running") return [button("", "Pause", act("pause")), button("", "Stop", act("stop"))];
  if (state === "paused") return [button("", "Go on", act("resume")), button("", "Stop", act("stop"))];
  return [button("", "Look for changes now", act("start"))];
}

function failureLine({ path, name, error }) {
  // The reason often begins with the path, which is above it already.
  const reason = error.startsWith(path) ? error.slice(path.length).replace(/^[:\s]+/, "") : error;
  return h("li", {}, h("b", {}, name), h("small", {}, path), h("span", {}, reason));
}

function modelText({ name, state, step, fraction, error }) {
  const share = fraction > 0 && fraction < 1 ? ` ${Math.floor(fraction * 100)}%` : "";
  const words = {
    unloaded: "loads with the next search",
    loading: `getting ready: ${step ?? ""}${share}`,
    ready: "ready",
    failed: `does not work: ${error ?? "no reason known"}`,
  };
  return `${name}: ${words[state] ?? state}`;
}

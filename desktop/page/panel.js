/** The library's panel: what is being read, which folders, what could not be read, which model. */

import { get, send } from "./api.js";
import { byId, dialog, h, partsOf, toast } from "./dom.js";
import { folderForm, folderList } from "./folders.js";
import { count, plural, roughly } from "./format.js";

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

/** What one can have indexing do. */
const ACTS = { running: ["pause", "stop"], paused: ["resume", "stop"], idle: ["start"] };

export function openPanel(live) {
  const act = ({ currentTarget }) =>
    send("POST", "api/index", { action: currentTarget.dataset.act }).catch((error) => toast(error.message));
  const box = dialog("panel", { pause: act, resume: act, stop: act, start: act });
  const [progress, folders, failures, model, drawn] = partsOf(box, ".progress", ".list", ".failed", ".model", ".drawn");
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
    model.textContent = modelText(status.model);
    drawn.hidden = status.model.name !== "tiny";
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

function progressView(box, status) {
  const { indexing, photos, videos } = status;
  const { state, done, total } = indexing;
  const [heading, bar, at] = partsOf(box, ".state", "progress", ".at");
  for (const one of box.querySelectorAll("button")) one.hidden = !ACTS[state].includes(one.dataset.act);
  // Whoever pressed a button that is gone goes on with the one in its place.
  if (document.activeElement === document.body || document.activeElement.hidden) box.querySelector("button:not([hidden])").focus();
  bar.hidden = state === "idle";
  if (bar.hidden) {
    heading.textContent = `${plural(photos, "photo")} and ${plural(videos, "video")}, ready to be found`;
    at.textContent = indexing.error ?? (status.watching ? "New and changed files are noticed by themselves." : "");
    return;
  }
  if (total) bar.value = shareOf(indexing);
  else bar.removeAttribute("value");
  heading.textContent = `${state === "paused" ? "Paused at" : "Reading"} ${total ? `${count(done)} of ` : ""}${plural(total || done, "file")}`;
  const details = [
    state === "running" && indexing.per_s > 0 && `${indexing.per_s.toFixed(indexing.per_s < 10 ? 1 : 0)} a second`,
    state === "running" && indexing.eta_s > 0 && `${roughly(indexing.eta_s)} left`,
    indexing.path_name,
  ];
  at.textContent = details.filter(Boolean).join(" · ");
}

function failureLine({ path, name, error }) {
  // The reason may begin with the path, which is above it already.
  const reason = error.replace(path, "").replace(/^[:\s]+/, "");
  return h("li", {}, h("b", {}, name), h("small", {}, path.slice(0, -name.length - 1)), h("p", {}, reason));
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

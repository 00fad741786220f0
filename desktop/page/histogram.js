/** Months as bars: drag over them for a range, or move its ends with the arrow keys. */

import { copyOf, h, partsOf } from "./dom.js";
import { monthName, monthsName, plural } from "./format.js";

/** Of the drawing, in its own units. */
const HIGH = 100;
/** Pixels: a press so close to an end moves that end. */
const NEAR = 12;

const index = (month) => Number(month.slice(0, 4)) * 12 + Number(month.slice(5, 7) || 1) - 1;
const name = (i) => `${Math.floor(i / 12)}-${String((i % 12) + 1).padStart(2, "0")}`;

/** A range in words; empty where there is none. `before` is exclusive. */
export function rangeName(after, before) {
  if (!after && !before) return "";
  const first = after && name(index(after));
  const last = before && name(index(before) - 1);
  if (!last) return `Since ${monthName(first)}`;
  if (!first) return `Until ${monthName(last)}`;
  const [year, month] = first.split("-");
  return month === "01" && last === `${year}-12` ? year : monthsName(first, last);
}

/**
 * @param {{month:string, count:number}[]} months  ascending
 * @param {{after:string, before:string}} range
 * @param {(range:{after:string, before:string}) => void} change
 */
export function histogram(months, range, change) {
  const start = index(months[0].month);
  const counts = new Array(index(months.at(-1).month) - start + 1).fill(0);
  for (const { month, count } of months) counts[index(month) - start] += count;
  const last = counts.length - 1;
  const inside = (i) => Math.min(last, Math.max(0, i));
  let from = range.after ? inside(index(range.after) - start) : 0;
  let to = range.before ? inside(index(range.before) - 1 - start) : last;

  const any = () => {
    set(0, last);
    tell();
  };
  const box = copyOf("months", { any });
  const [svg, all, chosen, said, area, years] = partsOf(box, "svg", "path", ".chosen", "output", ".bars", ".years");
  const ends = [...box.querySelectorAll(".end")];
  svg.setAttribute("viewBox", `0 0 ${counts.length} ${HIGH}`);
  all.setAttribute("d", bars(counts, 0, last));

  const draw = () => {
    chosen.setAttribute("d", bars(counts, from, to));
    [from, to].forEach((value, i) => {
      ends[i].style.left = `${((value + i) / counts.length) * 100}%`;
      ends[i].setAttribute("aria-valuemax", last);
      ends[i].setAttribute("aria-valuenow", value);
      ends[i].setAttribute("aria-valuetext", monthName(name(start + value)));
    });
    const n = counts.slice(from, to + 1).reduce((sum, count) => sum + count, 0);
    const words = from === 0 && to === last ? "Any date" : rangeName(name(start + from), name(start + to + 1));
    said.textContent = `${words} · ${plural(n, "item")}`;
  };
  const tell = () => {
    const isAll = from === 0 && to === last;
    change(isAll ? { after: "", before: "" } : { after: name(start + from), before: name(start + to + 1) });
  };
  const set = (a, b) => {
    [from, to] = [inside(Math.min(a, b)), inside(Math.max(a, b))];
    draw();
  };

  dragging(area, counts.length, () => [from, to], set, tell);
  ends.forEach((end, i) =>
    end.addEventListener("keydown", ({ key }) => {
      const step = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -12, PageUp: 12 }[key];
      const goal = { Home: 0, End: last }[key];
      if (step === undefined && goal === undefined) return;
      const value = inside(goal ?? [from, to][i] + step);
      set(i ? Math.min(from, value) : value, i ? value : Math.max(to, value));
      tell();
    }),
  );
  const first = Math.floor(start / 12);
  for (let year = Math.floor((start + last) / 12); year >= first && years.children.length < 13; year--) {
    if (!months.some(({ month }) => month.startsWith(String(year)))) continue;
    const pick = () => {
      set(year * 12 - start, year * 12 + 11 - start);
      // All of it, though its last months may be empty.
      change({ after: `${year}-01`, before: `${year + 1}-01` });
    };
    years.append(h("button", { type: "button", class: "year", onclick: pick }, String(year)));
  }
  draw();
  return box;
}

/** One path for all bars; heights grow as the root, so that months with few items are seen beside large ones. */
function bars(counts, from, to) {
  const most = Math.max(...counts);
  let path = "";
  for (let i = from; i <= to; i++) {
    if (!counts[i]) continue;
    const top = HIGH - Math.max(8, HIGH * Math.sqrt(counts[i] / most));
    path += `M${i + 0.08} ${HIGH}V${top.toFixed(1)}H${i + 0.92}V${HIGH}z`;
  }
  return path;
}

function dragging(area, n, range, set, tell) {
  let anchor = null;
  const at = (event) => {
    const box = area.getBoundingClientRect();
    return { i: Math.floor(((event.clientX - box.left) / box.width) * n), step: box.width / n, x: event.clientX - box.left };
  };
  area.addEventListener("pointerdown", (event) => {
    const { i, step, x } = at(event);
    const [from, to] = range();
    const whole = from === 0 && to === n - 1;
    if (!whole && Math.abs(x - from * step) < NEAR) anchor = to;
    else if (!whole && Math.abs(x - (to + 1) * step) < NEAR) anchor = from;
    else set((anchor = Math.min(n - 1, Math.max(0, i))), anchor);
    area.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  area.addEventListener("pointermove", (event) => anchor !== null && set(anchor, at(event).i));
  area.addEventListener("pointerup", () => {
    if (anchor !== null) tell();
    anchor = null;
  });
  area.addEventListener("pointercancel", () => (anchor = null));
}

/**
 * Where tiles lie: rows of equal height that fill the width. Arithmetic alone; nothing here knows the document.
 */

const NARROWEST = 0.45;
const WIDEST = 3.2;
const FEW = 6;

/** Width over height of an item's box: its own, but neither a sliver nor a ribbon. */
export function aspect(item) {
  if (!item.width || !item.height) return 1;
  return Math.min(WIDEST, Math.max(NARROWEST, item.width / item.height));
}

/**
 * @typedef {{y:number, height:number, from:number, to:number, heading:string}} Row  items [from, to); a row with a
 *   heading has no items
 * @typedef {{rows:Row[], x:Float64Array, width:Float64Array, rowOf:Int32Array, height:number}} Layout
 */

/**
 * Lay out items.
 *
 * Items fill a row until it would be lower than wanted; then it is stretched to the width. The last row of a
 * section keeps the wanted height, as there is nothing to fill it.
 *
 * @param {ArrayLike<{width:number, height:number}>} items
 * @param {{width:number, rowHeight:number, gap:number, heading:number, sections:{at:number, title:string}[]}} options
 *   sections: where each begins, ascending; heading: the height of one
 * @returns {Layout}
 */
export function justify(items, { width, rowHeight, gap, heading, sections }) {
  const n = items.length;
  const layout = { rows: [], x: new Float64Array(n), width: new Float64Array(n), rowOf: new Int32Array(n), height: 0 };
  const starts = sections.length ? sections : [{ at: 0, title: "" }];
  let y = 0;
  starts.forEach(({ at, title }, index) => {
    const end = index + 1 < starts.length ? starts[index + 1].at : n;
    if (title) {
      layout.rows.push({ y, height: heading, from: at, to: at, heading: title });
      y += heading;
    }
    for (let from = at; from < end; ) {
      const { to, sum, isFull } = fill(items, from, end, width, rowHeight, gap);
      const room = width - gap * (to - from - 1);
      const height = isFull ? room / sum : Math.min(rowHeight, room / sum);
      setRow(layout, items, { y, height, from, to, heading: "" }, gap);
      y += height + gap;
      from = to;
    }
  });
  layout.height = Math.max(0, y - gap);
  return layout;
}

/** How many items go into the row that begins at `from`: as many as bring its height closest to the wanted one. */
function fill(items, from, end, width, rowHeight, gap) {
  let sum = 0;
  for (let i = from; i < end; i++) {
    const next = sum + aspect(items[i]);
    const height = (width - gap * (i - from)) / next;
    if (height <= rowHeight) {
      const before = i > from ? (width - gap * (i - from - 1)) / sum : Infinity;
      return before - rowHeight < rowHeight - height
        ? { to: i, sum, isFull: true }
        : { to: i + 1, sum: next, isFull: true };
    }
    sum = next;
  }
  return { to: end, sum, isFull: false };
}

function setRow(layout, items, row, gap) {
  let x = 0;
  for (let i = row.from; i < row.to; i++) {
    layout.x[i] = x;
    layout.width[i] = aspect(items[i]) * row.height;
    layout.rowOf[i] = layout.rows.length;
    x += layout.width[i] + gap;
  }
  layout.rows.push(row);
}

/** The rows that meet the stretch from `top` to `bottom`: [first, last). */
export function rowsBetween(rows, top, bottom) {
  const below = (edge) => {
    let [low, high] = [0, rows.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (rows[middle].y + rows[middle].height <= edge) low = middle + 1;
      else high = middle;
    }
    return low;
  };
  const first = below(top);
  let last = first;
  while (last < rows.length && rows[last].y < bottom) last++;
  return [first, last];
}

/** The item above (step -1) or below (step 1) an item: the one whose middle is nearest; itself at the edge. */
export function neighbour(layout, index, step) {
  let row = layout.rowOf[index] + step;
  while (layout.rows[row]?.heading) row += step;
  const target = layout.rows[row];
  if (!target) return index;
  const middle = layout.x[index] + layout.width[index] / 2;
  let best = target.from;
  const distance = (i) => Math.abs(layout.x[i] + layout.width[i] / 2 - middle);
  for (let i = target.from; i < target.to; i++) if (distance(i) < distance(best)) best = i;
  return best;
}

/**
 * Sections by month for items with the newest first: {at, title}. Months with few items share a section, so that
 * they do not take a row each. `name(first, last)` puts a stretch of months, as "2023-05", into words.
 */
export function months(items, name) {
  const sections = [];
  let newest = null;
  let month = null;
  for (let i = 0; i <= items.length; i++) {
    const next = i < items.length ? (items[i].taken_at?.slice(0, 7) ?? "") : null;
    if (next === month) continue;
    const open = sections.at(-1);
    if (open) open.title = month ? name(month, newest) : "Without a date";
    month = next;
    if (next === null || (open && next && i - open.at < FEW)) continue;
    sections.push({ at: i, title: "" });
    newest = next;
  }
  return sections;
}

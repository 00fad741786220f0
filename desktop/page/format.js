/** Dates, sizes, durations and scores in words that people use. Times are those of the camera, without a zone. */

const number = new Intl.NumberFormat("en");
const month = new Intl.DateTimeFormat("en", { month: "long", year: "numeric", timeZone: "UTC" });
const shortMonth = new Intl.DateTimeFormat("en", { month: "short", year: "numeric", timeZone: "UTC" });
const day = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeZone: "UTC" });
const moment = new Intl.DateTimeFormat("en", { dateStyle: "full", timeStyle: "short", timeZone: "UTC" });

export const count = (n) => number.format(n);

/** plural(1, "photo") is "1 photo"; plural(2, "photo") is "2 photos". */
export const plural = (n, noun) => `${count(n)} ${noun}${n === 1 ? "" : "s"}`;

// A camera's clock has no zone: reading it as UTC and writing it as UTC shows the same figures.
const dated = (text) => new Date(`${text.length === 7 ? `${text}-01` : text.slice(0, 19)}${text.length > 10 ? "Z" : ""}`);

/** "2023-05" -> "May 2023" */
export const monthName = (text) => month.format(dated(text));

/** "May 2023", "Mar – May 2023" or "Dec 2022 – May 2023". */
export const monthsName = (first, last) => (first === last ? monthName(last) : shortMonth.formatRange(dated(first), dated(last)));
export const dayName = (text) => day.format(dated(text));
export const momentName = (text) => moment.format(dated(text));

/** Seconds as a player shows them: 0:07, 12:30, 1:02:03. */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (n) => String(n).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

/** How long something takes, roughly: "about 3 minutes". */
export function roughly(seconds) {
  if (seconds < 50) return "less than a minute";
  if (seconds < 5400) return `about ${plural(Math.max(1, Math.round(seconds / 60)), "minute")}`;
  return `about ${plural(Math.round(seconds / 3600), "hour")}`;
}

export function bytes(n) {
  const units = ["bytes", "KB", "MB", "GB", "TB"];
  let step = 0;
  while (n >= 1000 && step < 4) [n, step] = [n / 1000, step + 1];
  return `${step && n < 10 ? n.toFixed(1) : Math.round(n)} ${units[step]}`;
}

/** Degrees as on a map: 36.52° N, 6.29° W. */
export function coordinates(latitude, longitude) {
  const one = (value, plus, minus) => `${Math.abs(value).toFixed(2)}° ${value < 0 ? minus : plus}`;
  return `${one(latitude, "N", "S")}, ${one(longitude, "E", "W")}`;
}

export const percent = (p) => (p > 0.995 && p < 1 ? "99%" : `${Math.round(p * 100)}%`);

/** The reranker's probability in words. */
export function verdict(probability) {
  if (probability >= 0.9) return "Very likely a match";
  if (probability >= 0.5) return "Probably a match";
  if (probability >= 0.1) return "Perhaps a match";
  return "Probably not a match";
}

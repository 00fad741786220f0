/**
 * The server, as functions. Addresses are relative, and queries in words go nowhere but to this server.
 */

/** Characters of an address that every browser and proxy takes. */
const LONGEST_QUERY = 2000;

/** What the server answered instead of a result. `message` is fit for showing. */
export class ApiError extends Error {
  constructor(status, type, message, retryAfter) {
    super(message);
    this.status = status;
    this.type = type;
    this.retryAfter = retryAfter;
  }
}

/** Fires "signin" when the server wants a token. */
export const gate = new EventTarget();

/** `params` as a query string: lists repeat their name, what is empty is left out. */
export function queryString(params) {
  const parts = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if ((one ?? "") !== "") parts.append(name, one);
    }
  }
  const text = parts.toString();
  return text && `?${text}`;
}

/** Ask; raises ApiError for anything but success, status 0 where nothing answered. */
export async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "unreachable", "qvl-local does not answer. Is it still running?", 0);
  }
  if (response.ok) return response;
  const text = await response.text();
  let problem = {};
  try {
    problem = JSON.parse(text).error ?? {};
  } catch {
    // not one of the server's own answers
  }
  if (response.status === 401) gate.dispatchEvent(new Event("signin"));
  const message = problem.message ?? `The server answered ${response.status} ${response.statusText}`.trim();
  throw new ApiError(response.status, problem.type ?? "", message, Number(response.headers.get("Retry-After")) || 0);
}

/** Ask with `params` in the address; as JSON in the body where that would be too long, which a search may be. */
function find(path, params, options) {
  const query = queryString(params);
  if (query.length < LONGEST_QUERY) return ask(path + query, options);
  return ask(path, { ...options, ...json("POST", params, (_, value) => (value === "" ? undefined : value)) });
}

const json = (method, body, replacer) => ({
  method,
  headers: body && { "Content-Type": "application/json" },
  body: JSON.stringify(body, replacer),
});

/** @returns {Promise<any>} */
export async function get(path, params = {}, options = {}) {
  return (await find(path, params, options)).json();
}

/** Send JSON; resolves to JSON, or null where the answer is empty. */
export async function send(method, path, body) {
  const text = await (await ask(path, json(method, body))).text();
  return text ? JSON.parse(text) : null;
}

/**
 * Server-sent events, read by hand: unlike EventSource this tells the status and the text of a refusal, and may send
 * a body. The server writes each as two lines. Yields [name, data]; a comment yields ["", null]: the other end lives.
 */
export async function* events(path, params, signal) {
  const response = await find(path, params, { signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const [, name = "", data = null] = /^event: (\w+)\ndata: (.+)/s.exec(block) ?? [];
      yield [name, JSON.parse(data)];
    }
  }
}

/** A small picture of an item; of the moment that matched, for a video. `wide`: pixels of the screen. */
export function thumbUrl(item, wide) {
  const moment = item.start_s ? Math.round(item.start_s * 1000) : "";
  return `thumb/${item.id}${queryString({ w: wide > 320 ? 640 : 320, v: moment })}`;
}

/** The file itself; `asJpeg` for kinds that browsers cannot show. */
export function fileUrl(id, asJpeg = false) {
  return `file/${id}${asJpeg ? "?as=jpeg" : ""}`;
}

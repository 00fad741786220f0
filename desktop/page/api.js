/**
 * The server, as functions. Addresses are relative, and queries in words go nowhere but to this server.
 */

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
    response = await fetch(path, { ...options, credentials: "same-origin", cache: "no-store" });
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

/** @returns {Promise<any>} */
export async function get(path, params = {}, options = {}) {
  return (await ask(path + queryString(params), options)).json();
}

/** Send JSON; resolves to JSON, or null where the answer is empty. */
export async function send(method, path, body) {
  const headers = body === undefined ? {} : { "Content-Type": "application/json" };
  const response = await ask(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  const text = await response.text();
  return text ? JSON.parse(text) : null;
}

/**
 * Server-sent events, read by hand: unlike EventSource this tells the status and the text of a refusal.
 * Yields [name, data]; a comment yields ["", null], which says that the other end lives.
 */
export async function* events(path, params, signal) {
  const response = await ask(path + queryString(params), { signal, headers: { Accept: "text/event-stream" } });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      let name = "";
      let data = "";
      for (const line of block.split("\n")) {
        if (line.startsWith("event:")) name = line.slice(6).trim();
        else if (line.startsWith("data:")) data += line.slice(5).trim();
      }
      yield [name, data ? JSON.parse(data) : null];
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

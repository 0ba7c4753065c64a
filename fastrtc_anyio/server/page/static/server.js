"use strict";

// Requests to the server, server-sent events, and the access token.

const TOKEN_KEY = "fastrtc_anyio.token";

/** An error whose message is shown to the user. */
class CallError extends Error {
  /**
   * `passing` names a temporary cause: "gone" (no server), "restarting" or "full" (no free slot). `status` is the HTTP
   * status, `retryAfter` the seconds that the server asks to wait, and `note` a sentence to show during that time.
   */
  constructor(message, { status = 0, passing = "", retryAfter, note = "" } = {}) {
    super(message);
    Object.assign(this, { status, passing, retryAfter, note });
  }
}

// The access token. It comes from the address (#token=..., which browsers do not send, and which the page removes at
// once) or from the user, and is kept until the tab is closed.
let token = "";
{
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) history.replaceState(history.state, "", location.pathname + location.search);
  keepToken(given || kept());
}

function kept() {
  try {
    return sessionStorage.getItem(TOKEN_KEY) ?? "";
  } catch {
    return "";  // a frame without storage
  }
}

function keepToken(given) {
  token = given;
  try {
    if (given) sessionStorage.setItem(TOKEN_KEY, given);
    else sessionStorage.removeItem(TOKEN_KEY);
  } catch { /* kept until the page is left */ }
}

const loadConfig = (signal) => ask("webrtc/config", { signal });

/** The address of an endpoint. The page may have been opened without the slash at the end of its address. */
function endpoint(path) {
  const page = new URL(location.href);
  if (!page.pathname.endsWith("/")) page.pathname += "/";
  return new URL(path, page);
}

/** Send a request with the token. Returns the response if it is a success. */
async function request(path, options) {
  if (/[^\x21-\x7e]/.test(token)) throw new CallError("A token must consist of visible ASCII characters.", { status: 401 });
  const headers = { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) };
  let response;
  try {
    response = await fetch(endpoint(path), { ...options, headers });
  } catch {
    throw new CallError("The server does not answer. It may have stopped, or you may be offline.", { passing: "gone" });
  }
  if (response.ok) return response;
  throw refusal(response, await response.json().catch(() => null));
}

/** Send a request. Returns the JSON of the response. */
async function ask(path, options) {
  const response = await request(path, options);
  const reply = await response.json().catch(() => null);
  if (!reply) throw new CallError("The server sent an invalid response.");
  if (reply.status === "failed") throw refusal(response, reply);
  return reply;
}

/** The error to show for a request that the server rejected. */
function refusal(response, reply) {
  const { status } = response;
  const { error, limit, reason } = reply?.meta ?? {};
  const seconds = retryAfter(response);
  if (error === "concurrency_limit_reached") {
    const note = limit === 1 ? "It takes one call at a time." : `It takes ${limit ? `${limit} calls` : "no more calls"} at a time.`;
    return new CallError(`The server is busy. ${note} Try again later.`, { status: 503, passing: "full", retryAfter: seconds, note });
  }
  if (reason === "draining") {
    const message = "The server is restarting. Try again later.";
    return new CallError(message, { status, passing: "restarting", retryAfter: seconds });
  }
  const detail = error ? asText(error) : "";
  const texts = {
    401: detail ? sentence(detail) : "The server requires an access token.",
    403: detail ? `Access denied: ${detail}` : "Access denied.",
    404: detail ? `The server rejected the request: ${detail}` : "No stream is mounted at this address (HTTP 404).",
  };
  const message = texts[status]
    ?? (detail ? `The server rejected the request: ${detail}` : `The server rejected the request (HTTP ${status}).`);
  return new CallError(message, {
    status, passing: [429, 502, 503, 504].includes(status) ? "gone" : "", retryAfter: seconds,
  });
}

const withStop = (text) => (/[.!?]$/.test(text) ? text : `${text}.`);
const sentence = (text) => withStop(`${text[0].toUpperCase()}${text.slice(1)}`);

/** Read server-sent events as pairs of name and data. An EventSource cannot send a token. */
async function* readEvents(path, signal) {
  const response = await request(path, { signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  while (true) {
    const { done, value } = await reader.read();
    if (done) return;
    const events = (rest + value).replaceAll("\r", "").split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const all = (name) => event.split("\n").filter((line) => line.startsWith(`${name}:`))
        .map((line) => line.slice(name.length + 1).trimStart()).join("\n");
      if (all("event")) yield [all("event"), all("data")];
    }
  }
}

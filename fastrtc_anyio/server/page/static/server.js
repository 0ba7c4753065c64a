"use strict";

// The server, as the page speaks with it: requests, events, and who the person is.

const TOKEN_KEY = "fastrtc_anyio.token";

/** An error whose message is meant for the person at the page. */
class CallError extends Error {
  /** `status` is HTTP's; `passing`: it may be over in a while. */
  constructor(message, { status = 0, passing = "" } = {}) {
    super(message);
    Object.assign(this, { status, passing });
  }
}

// What the server wants to see of those it knows. It comes with the address (#token=..., which browsers send to
// nobody and which is taken off at once) or from the person, and is kept as long as the tab is.
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
    return "";  // a frame that may store nothing
  }
}

function keepToken(given) {
  token = given;
  try {
    if (given) sessionStorage.setItem(TOKEN_KEY, given);
    else sessionStorage.removeItem(TOKEN_KEY);
  } catch { /* it is kept as long as the page is */ }
}

const loadConfig = (signal) => ask("webrtc/config", { signal });

/** The answer to a request, by whoever the token says. */
async function request(path, options) {
  if (/[^\x21-\x7e]/.test(token)) throw new CallError("A token has no spaces and no letters beyond ASCII.", { status: 401 });
  const headers = { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch {
    throw new CallError("The server does not answer. It may have stopped, or you may be offline.", { passing: "gone" });
  }
  if (response.ok) return response;
  throw refusal(response, await response.json().catch(() => null));
}

/** The JSON that the server answers with. */
async function ask(path, options) {
  const response = await request(path, options);
  const reply = await response.json().catch(() => null);
  if (!reply) throw new CallError("The server's answer was not understood.");
  if (reply.status === "failed") throw refusal(response, reply);
  return reply;
}

/** What to tell a person about a request that the server turned down. */
function refusal({ status }, reply) {
  const { error, limit } = reply?.meta ?? {};
  if (error === "concurrency_limit_reached") {
    return new CallError(
      limit === 1
        ? "The server is busy: it takes one call at a time. Try again in a while."
        : `The server is busy: all ${limit ?? ""} places are taken. Try again in a while.`.replace("  ", " "),
      { status, passing: "full" },
    );
  }
  const told = error ? asText(error) : "";
  const words = {
    401: told ? sentence(told) : "The server lets in only those it knows.",
    403: `The server does not let you in${told ? `: ${told}` : "."}`,
    404: told ? `The server refuses it: ${told}` : "There is no stream where this page is (HTTP 404).",
  };
  const message = words[status] ?? (told ? `The server refuses it: ${told}` : `The server refused the call (HTTP ${status}).`);
  return new CallError(message, { status, passing: [502, 503, 504].includes(status) ? "gone" : "" });
}

const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1).replace(/[.]?$/, ".")}`;

/** Server-sent events: pairs of their names and their data. No EventSource, which can send no token. */
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

"use strict";

// The conversation: one row for each thing that the user or the assistant said, all of it as text nodes.

const ENTRIES_KEPT = 200;
const TEXT_KEPT = 10_000;   // characters of an entry
const CHAT_COMPARED = 8;    // messages of a Chatbot in which an entry's text is looked for

class Entry {
  constructor(role, text = "") {
    Object.assign(this, { role, text, caption: null, interrupted: false, response: null, isSpoken: false });
    this.node = entryNode(role);
    [this.said, this.meta] = [this.node.querySelector(".said"), element("p", "meta")];
    this.node.append(this.meta);
    this.draw();
  }

  /** Text that is shown as said, and heard. */
  get shown() {
    return this.caption ? this.caption.text.slice(0, this.caption.heard) : this.text;
  }

  draw() {
    const { caption, interrupted } = this;
    this.node.classList.toggle("live", Boolean(caption));
    const rest = caption ? element("span", "coming", caption.text.slice(caption.heard)) : this.rest ?? "";
    this.said.replaceChildren(this.shown, rest);
    const notes = [
      interrupted && element("span", "badge", "Interrupted"),
      this.response !== null && responseNote(this.response),
    ].filter(Boolean);
    this.meta.replaceChildren(...notes);
    this.meta.hidden = !notes.length;
  }

  /** The reply is over. `text` is what was heard of it. */
  finish(text, interrupted) {
    const unheard = interrupted ? this.caption?.unheard(text).trim() : "";
    if (unheard) {
      this.rest = element("s", "", unheard);
      this.rest.prepend(element("span", "unseen", "Not heard: "));
    }
    Object.assign(this, { text: unheard ? `${text.trimEnd()} ` : text, interrupted, caption: null });
    this.draw();
  }
}

class Conversation {
  constructor() {
    Object.assign(this, { entries: [], byId: new Map(), chat: null, compared: [] });
    this.live = null;      // the entry with the caption that goes on
    this.reply = null;     // the entry of the latest reply, once it has text
    this.response = null;  // a response time that waits for the text of its reply
  }

  /** Show the data of a `transcript` message. */
  take({ id, role, text, final, sentence, seconds, interrupted }) {
    if (typeof text !== "string") return;
    const said = cut(text, TEXT_KEPT);
    const key = id === undefined ? undefined : String(id).slice(0, 100);
    const isCaption = final === false;
    if (!said.trim() && !this.byId.has(key)) return;
    const entry = this.byId.get(key) ?? this.add(new Entry(roleOf(role)), key);
    entry.isSpoken = true;
    if (isCaption && this.live !== entry) this.settle();
    this.keepAtEnd(() => {
      if (isCaption) {
        entry.caption ??= new Caption();
        entry.caption.begin(said, typeof sentence === "string" ? sentence : "", seconds);
        entry.draw();
      } else {
        entry.finish(said, interrupted === true);
      }
    });
    if (isCaption) this.live = entry;
    else if (this.live === entry) this.live = null;
    if (!said.trim() && !isCaption) {  // interrupted before its first word
      this.remove(entry);
      return;
    }
    if (entry.role === "assistant") this.reply = entry;
    if (this.response !== null) this.answered(this.response);
    this.hideRepetitions();
  }

  /** Add a whole text, such as a written message. */
  say(role, text) {
    if (!text.trim()) return;
    this.add(new Entry(roleOf(role), cut(text, TEXT_KEPT)));
    if (!isUser(role)) announce(text);
    this.hideRepetitions();
  }

  add(entry, key) {
    if (key !== undefined) this.byId.set(key, entry);
    this.entries.push(entry);
    this.keepAtEnd(() => $("entries").append(entry.node));
    while (this.entries.length > ENTRIES_KEPT) this.remove(this.entries[0]);
    this.show();
    return entry;
  }

  remove(entry) {
    this.entries = this.entries.filter((other) => other !== entry);
    for (const [key, other] of this.byId) if (other === entry) this.byId.delete(key);
    entry.node.remove();
    if (this.live === entry) this.live = null;
  }

  /** Another session goes on: the ids of a session are its own. */
  goOn() {
    this.settle();
    this.byId.clear();
    this.replyDue();
  }

  begin() {
    this.goOn();
    const last = this.entries.at(-1);
    if (last && last.role !== "divider") {
      const time = new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
      this.add(new Entry("divider", `New call at ${time}`));
    }
  }

  /** No caption goes on: keep what was heard. */
  settle() {
    const entry = this.live;
    this.live = null;
    if (!entry) return;
    if (entry.shown.trim()) entry.finish(entry.shown.trimEnd(), false);
    else this.remove(entry);
  }

  /** Let time pass for the live caption, in seconds. */
  advance(seconds, sounding) {
    if (this.live?.caption.advance(seconds, sounding)) this.keepAtEnd(() => this.live.draw());
  }

  /** A new reply is due. */
  replyDue() {
    this.reply = this.response = null;
  }

  /** Show the time from the user's last word to the first sound of the latest reply. */
  answered(ms) {
    this.response = this.reply ? null : ms;
    if (!this.reply) return;
    this.reply.response = ms;
    this.reply.draw();
  }

  /** Show the value of a Chatbot, which replaces the speech shown before. */
  showChat(value) {
    const messages = Array.isArray(value) ? value.slice(-ENTRIES_KEPT) : [];
    const rows = messages.map((message) => entryNode(roleOf(message?.role), cut(asText(message?.content), TEXT_KEPT)));
    this.keepAtEnd(() => patch($("chat"), rows));
    this.chat = messages;
    this.compared = messages.slice(-CHAT_COMPARED)
      .map((message) => [isUser(message?.role), words(asText(message?.content))]);
    for (const entry of this.entries.filter((one) => one !== this.live && one.isSpoken)) {
      this.remove(entry);
    }
    this.hideRepetitions();
    this.show();
  }

  /** Hide entries whose text a Chatbot shows. */
  hideRepetitions() {
    if (!this.chat) return;
    for (const { node, role, text, caption } of this.entries) {
      const said = words(caption?.text ?? text);
      node.hidden = this.compared.some(([user, there]) => user === isUser(role) && there.includes(said));
    }
  }

  /** The conversation as plain text. */
  asText() {
    const line = (role, text, end = "") => (role === "divider" ? `\n${text}\n` : `${nameOf(role)}: ${text}${end}`);
    return [
      ...(this.chat ?? []).map((message) => line(roleOf(message?.role), asText(message?.content))),
      ...this.entries.filter(({ node }) => !node.hidden)
        .map((entry) => line(entry.role, entry.shown.trim(), entry.interrupted ? " [interrupted]" : "")),
    ].join("\n");
  }

  show() {
    showConversation(this.entries.length > 0 || Boolean(this.chat?.length));
  }

  /** Make a change, and scroll to the end if the end is in view. */
  keepAtEnd(change) {
    const log = $("transcript");
    const atEnd = isAtEnd(log);
    change();
    if (atEnd) log.scrollTop = log.scrollHeight;
  }
}

function entryNode(role, text = "") {
  const kind = ["user", "assistant", "divider"].includes(role) ? role : "other";
  const node = element("li", `entry ${kind}`);
  if (role !== "divider") node.append(element("span", "who", nameOf(role)));
  node.append(element("p", "said", text));
  return node;
}

function responseNote(ms) {
  const note = element("span", "response", `${(ms / 1000).toFixed(1)} s after your last word`);
  note.title = "Measured by this page: from the end of your speech to the first sound of the answer.";
  return note;
}

/** Replace the children that differ: screen readers and selections keep the others. */
function patch(list, rows) {
  [...list.children].slice(rows.length).forEach((node) => node.remove());
  rows.forEach((row, i) => {
    const there = list.children[i];
    if (!there) list.append(row);
    else if (!there.isEqualNode(row)) there.replaceWith(row);
  });
}

const isUser = (role) => role === "user";
const roleOf = (role) => (typeof role === "string" && role.trim() ? cut(role.trim(), 30) : "assistant");
const nameOf = (role) => (role === "user" ? "You" : role === "assistant" ? "Assistant" : role);
const words = (text) => text.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, " ").trim();

async function copyConversation() {
  const text = conversation.asText();
  let copied = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    copied = copyBySelection(text);  // a page without https, or a frame without the permission
  }
  $("copy").textContent = copied ? "Copied" : "Not copied";
  announce(copied ? "The conversation was copied." : "The browser did not copy the conversation.");
  setTimeout(() => { $("copy").textContent = "Copy"; }, 2_000);
}

function copyBySelection(text) {
  const field = Object.assign(element("textarea", "unseen"), { value: text });
  document.body.append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  $("copy").focus();
  return copied;
}

/** Let screen readers say a text. */
function announce(text) {
  $("announcement").textContent = cut(text, 500);
}

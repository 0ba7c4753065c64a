"use strict";

// The log behind "Details", and notices.

const MESSAGES_KEPT = 200;
const LOGGED_LENGTH = 10_000;
const NOTICE_MS = 12_000;

let noticeTimer = 0;

/** Add a row to the log. */
function addMessage(kind, text, style = kind) {
  const [log, list] = [$("messages"), $("message-list")];
  const atEnd = isAtEnd(log);
  const item = element("li", style);
  item.append(
    element("time", "", new Date().toLocaleTimeString([], { hour12: false })),
    element("span", "kind", cut(kind, 40)),
    element("span", "text", cut(text, LOGGED_LENGTH)),
  );
  list.append(item);
  while (list.children.length > MESSAGES_KEPT) list.firstChild.remove();
  showLog(true);
  if (atEnd) log.scrollTop = log.scrollHeight;
}

function clearLog() {
  $("message-list").replaceChildren();
  showLog(false);
}

function showLog(filled) {
  $("messages").hidden = !filled;
  $("no-messages").hidden = filled;
  $("clear").disabled = !filled;
}

/** Log a warning and show it for some seconds. */
function warn(text) {
  addMessage("warning", text);
  setNotice(cut(text, 300));
}

function setNotice(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
  clearTimeout(noticeTimer);
  if (text) noticeTimer = setTimeout(() => setNotice(""), NOTICE_MS);
}

const isAtEnd = (node) => node.scrollHeight - node.scrollTop - node.clientHeight < 8;
const cut = (text, length) => (text.length > length ? `${text.slice(0, length)}…` : text);

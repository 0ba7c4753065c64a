"use strict";

// Messages of the server on the data channel of a call.

/** Handle a message: a string of JSON, other text, or bytes. */
function receive(call, data) {
  if (call.ended) return;
  let message = null;
  try {
    message = JSON.parse(data);
  } catch { /* not JSON: a text */ }
  const text = message?.message ?? message?.data;
  switch (message?.type) {
    case "error":
      call.serverError = asText(text);
      addMessage("error", call.serverError);
      setAlert(call.serverError);
      break;
    case "warning":
      warn(asText(text));
      break;
    case "log":
      addMessage("log", asText(text));
      if (Object.hasOwn(TURNS, text)) call.setTurn(text);
      break;
    case "send_input":
      if (fields.inputs.length) call.sendInputs();
      else addMessage("send_input", "The handler asked for inputs, but the stream declares none.");
      break;
    case "end_stream":
      call.endedByServer(message.reason, text);
      break;
    case "transcript":
      if (typeof message.data?.text === "string") conversation.take(message.data);
      else addMessage("transcript", data, "raw");
      break;
    default:
      receiveOther(message, data);
  }
}

/** A message of the application: one with a text belongs to the conversation, all others to the log. */
function receiveOther(message, data) {
  const type = message?.type;
  if (type === "fetch_output" && fields.outputs.length) return;  // the server pushes them
  const said = message?.data?.text ?? message?.data?.content ?? message?.text ?? message?.content;
  if (typeof said === "string") conversation.say(message.data?.role ?? message.role, said);
  else if (typeof data !== "string") addMessage("bytes", "(binary)", "raw");
  else if (message === null || typeof message !== "object") conversation.say("assistant", data);
  else addMessage(asText(type ?? "message"), data, "raw");
}

// FastRTC's `log` messages about a conversation, as status and hint.
const TURNS = {
  listening: ["Listening", "Say something."],
  started_talking: ["You are talking", "The assistant hears you."],
  pause_detected: ["Thinking", "The assistant prepares its answer."],
  response_starting: ["Answering", "The assistant is speaking."],
};

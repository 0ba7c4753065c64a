"use strict";

// The stream's declared inputs and outputs.

class Fields {
  constructor(changed) {
    Object.assign(this, { changed, inputs: [], outputs: [], controls: {}, shown: {}, drawn: "", chat: null });
  }

  /** Draw the inputs and outputs, unless they are drawn already. `submit` adds a button that sends the inputs. */
  render(inputs, outputs, submit) {
    const wanted = JSON.stringify([inputs, outputs, submit]);
    if (wanted === this.drawn) return;
    Object.assign(this, { inputs, outputs, submit, controls: {}, shown: {}, drawn: wanted });
    $("inputs").replaceChildren(...inputs.filter(({ kind }) => kind !== "chatbot").map((field) => this.control(field)));
    $("settings").hidden = !$("inputs").children.length;
    if (submit) $("inputs").append(Object.assign(element("button", "plain", "Submit"), { type: "submit" }));
    // The first Chatbot is the conversation.
    const chat = outputs.find(({ kind }) => kind === "chatbot");
    this.chat = chat?.name ?? null;
    $("conversation-title").textContent = chat?.label ?? "Conversation";
    const isCard = ({ name }) => !this.controls[name] && name !== this.chat;
    $("outputs").replaceChildren(...outputs.filter(isCard).map(outputCard));
    for (const { name, value } of [...inputs, ...outputs]) this.shown[name] = value;
    this.show({});
  }

  /** The values of all inputs by name. */
  values() {
    return Object.fromEntries(this.inputs.map(({ name }) => [name, this.controls[name]?.get() ?? this.shown[name]]));
  }

  /** Show outputs. An output that is also an input moves its control. */
  show(values) {
    Object.assign(this.shown, values);
    for (const { name } of this.outputs) {
      if (name === this.chat) conversation.showChat(this.shown[name]);
      else if (!this.controls[name]) showOutput(document.getElementById(`output-${name}`), this.shown[name]);
      else if (name in values) this.controls[name].set(values[name]);
    }
  }

  control(field) {
    const row = element("div", `field ${field.kind}`);
    const label = element("label", "", field.label);
    const made = CONTROLS[field.kind](field);
    made.node.id = label.htmlFor = `input-${field.name}`;
    made.node.name = field.name;
    made.set(field.value);
    made.node.addEventListener("input", () => {
      made.set(made.get());
      if (!this.submit) this.changed();
    });
    row.append(label, made.node, ...(made.note ? [made.note] : []));
    this.controls[field.name] = made;
    return row;
  }
}

const CONTROLS = {
  slider({ minimum, maximum, step, label }) {
    const node = Object.assign(element("input"), { type: "range", min: minimum, max: maximum, step });
    const note = element("output");
    const digits = Math.min(4, (String(step).split(".")[1] ?? "").length);
    node.setAttribute("aria-label", label);
    return {
      node,
      note,
      get: () => node.valueAsNumber,
      set: (value) => {
        if (node.valueAsNumber !== value) node.value = value;
        note.value = node.valueAsNumber.toFixed(digits);
      },
    };
  },
  textbox({ lines, placeholder, max_length, type }) {
    const node = element(lines > 1 ? "textarea" : "input");
    Object.assign(node, lines > 1 ? { rows: lines } : { type });
    Object.assign(node, { placeholder, maxLength: max_length });
    return valued(node);
  },
  choice({ choices }) {
    const node = element("select");
    node.append(...choices.map((choice) => new Option(choice, choice)));
    return valued(node);
  },
  checkbox() {
    const node = Object.assign(element("input"), { type: "checkbox" });
    return { node, get: () => node.checked, set: (value) => { node.checked = value; } };
  },
};

function valued(node) {
  // Write changes only: a write moves the caret.
  return { node, get: () => node.value, set: (value) => { if (node.value !== value) node.value = value; } };
}

function outputCard({ name, label }) {
  const card = element("section", "card output");
  const title = element("h2", "card-title", label);
  const body = element("div", "output-body");
  body.id = `output-${name}`;
  title.id = `${body.id}-title`;
  card.setAttribute("aria-labelledby", title.id);
  body.setAttribute("role", "log");
  body.setAttribute("aria-labelledby", title.id);
  body.tabIndex = 0;
  card.append(title, body);
  return card;
}

/** Show a value: a conversation as bubbles, text unchanged, everything else as JSON. */
function showOutput(body, value) {
  const atEnd = isAtEnd(body);
  const lines = Array.isArray(value) && value.every((message) => message?.role)
    ? value.map(({ role, content }) => entryNode(roleOf(role), asText(content)))
    : null;
  const empty = value === null || value === "" || lines?.length === 0;
  if (empty) {
    body.replaceChildren(element("p", "nothing", "Nothing yet"));
  } else if (lines) {
    if (body.firstChild?.tagName !== "OL") body.replaceChildren(element("ol"));
    patch(body.firstChild, lines);
  } else {
    const text = typeof value === "object" ? JSON.stringify(value, null, 2) : String(value);
    body.replaceChildren(element("p", typeof value === "object" ? "json" : "", text));
  }
  if (atEnd) body.scrollTop = body.scrollHeight;
}

function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

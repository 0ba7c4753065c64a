"use strict";

// Keys: M mutes and unmutes. While muted, the user talks as long as Space is held.
// Both can be switched off (WCAG 2.1.4), and do nothing in a field. Space presses a control that has the focus by Tab.

let isTalking = false;         // whether Space is held
let isFocusedByPointer = false;

const FIELDS = "input:not([type=checkbox]), textarea, select, [contenteditable]";
const CONTROLS_OF_SPACE = "button, summary, input, a[href], [tabindex='0']";

const canMute = () => call && plan.sends.includes("audio");

addEventListener("pointerdown", () => { isFocusedByPointer = true; }, true);

addEventListener("keydown", (event) => {
  if (event.key === "Tab") isFocusedByPointer = false;
  if (event.key === "Escape") {
    setAlert("");
    setNotice("");
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.(FIELDS)) return;
  if (!$("shortcuts").checked || !canMute()) return;
  if (event.key === "m" || event.key === "M") {
    if (!event.repeat) setMuted(!isMuted());
  } else if (event.key === " " && (isTalking || (isMuted() && isSpaceFree(event.target)))) {
    event.preventDefault();  // neither scrolls nor presses the button that was clicked last
    if (!event.repeat) holdToTalk(true);
  }
});
addEventListener("keyup", (event) => {
  if (event.key !== " " || !isTalking) return;
  event.preventDefault();
  holdToTalk(false);
});
addEventListener("blur", () => holdToTalk(false));  // the release would go to another window

/** Whether Space does nothing else for the focused element. */
const isSpaceFree = (target) => isFocusedByPointer || !target.closest?.(CONTROLS_OF_SPACE);

function holdToTalk(talking) {
  if (isTalking === talking) return;
  isTalking = talking;
  $("page").toggleAttribute("data-held", talking);
  if (canMute()) setMuted(!talking);
}

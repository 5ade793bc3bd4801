// Asks for the server's token; it stays in this page's memory.

import { useToken } from "./api.js";
import { byId } from "./dom.js";

let open = null;
let given = false;

/** @returns {Promise<boolean>} Whether one was given. Asked twice at once, it asks once. */
export function askToken() {
  open ??= ask().finally(() => { open = null; });
  return open;
}

function ask() {
  const dialog = byId("token");
  const text = byId("token-text");
  text.value = "";
  dialog.returnValue = "";
  byId("token-wrong").hidden = !given;
  dialog.showModal();
  text.focus();
  return new Promise((done) => {
    dialog.addEventListener("close", () => {
      const taken = dialog.returnValue === "use" && text.value.trim() !== "";
      if (taken) useToken(text.value.trim());
      given ||= taken;
      text.value = "";
      done(taken);
    }, { once: true });
  });
}

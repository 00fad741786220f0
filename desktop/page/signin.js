/** The token that a server on the network asks for. It travels in a request's body and comes back as a cookie. */

import { gate, send } from "./api.js";
import { dialog, partsOf } from "./dom.js";

/** `signedIn` is called when the server has taken the token. */
export function signIn(signedIn) {
  let box = null;
  gate.addEventListener("signin", () => {
    if (box) return;
    let isIn = false;
    box = dialog("signin");
    const [form, input, problem] = partsOf(box, "form", "input", ".problem");
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      try {
        await send("POST", "api/session", { token: input.value.trim() });
        isIn = true;
        box.close();
        gate.dispatchEvent(new Event("signed-in"));
        signedIn();
      } catch (error) {
        problem.textContent = error.status === 401 ? "That is not the token." : error.message;
        input.select();
      }
    });
    // Without the token there is nothing behind this dialog.
    box.addEventListener("cancel", (event) => event.preventDefault());
    box.addEventListener("close", () => {
      box = null;
      if (!isIn) gate.dispatchEvent(new Event("signin"));
    });
  });
}

/** The token that a server on the network asks for. It travels in a request's body and comes back as a cookie. */

import { gate, send } from "./api.js";
import { button, dialog, h } from "./dom.js";

/** `signedIn` is called when the server has taken the token. */
export function signIn(signedIn) {
  let box = null;
  gate.addEventListener("signin", () => {
    if (box) return;
    const input = h("input", { type: "password", name: "token", autocomplete: "current-password", required: true, id: "token" });
    const problem = h("p", { class: "problem", role: "alert" });
    const form = h(
      "form",
      {},
      h("h2", { id: "signin-title" }, "This library asks for its token"),
      h("p", {}, "It was printed where qvl-local was started, and lies in the file named there."),
      h("label", { for: "token" }, "Token"),
      input,
      problem,
      button("", "Sign in", () => {}, { type: "submit", class: "button main" }),
    );
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      try {
        await send("POST", "api/session", { token: input.value.trim() });
        box.close();
        box = null;
        gate.dispatchEvent(new Event("signed-in"));
        signedIn();
      } catch (error) {
        problem.textContent = error.status === 401 ? "That is not the token." : error.message;
        input.select();
      }
    });
    box = dialog({ class: "signin", "aria-labelledby": "signin-title" }, form);
    // Without the token there is nothing behind this dialog.
    box.addEventListener("cancel", (event) => event.preventDefault());
    box.addEventListener("close", () => (box = null));
  });
}

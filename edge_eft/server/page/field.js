/** Fields for texts. */

const TALLEST = 0.4; // of the window

/** Let a field grow with its text; what is returned fits it. @param {HTMLTextAreaElement} area */
export function growing(area) {
  const fit = () => {
    area.style.height = "auto";
    const { borderTopWidth, borderBottomWidth } = getComputedStyle(area);
    const borders = parseFloat(borderTopWidth) + parseFloat(borderBottomWidth);
    area.style.height = `${Math.min(area.scrollHeight + borders, innerHeight * TALLEST)}px`;
  };
  area.addEventListener("input", fit);
  requestAnimationFrame(fit);
  return fit;
}

/** Have Enter send a field's form; Shift+Enter begins a new line. */
export function entering(area) {
  area.addEventListener("keydown", (event) => {
    // 229: of a composition, in browsers that end it before they tell of the key.
    const isComposing = event.isComposing || event.keyCode === 229;
    if (event.key === "Enter" && !event.shiftKey && !isComposing) {
      event.preventDefault();
      area.form.requestSubmit();
    }
  });
}

/** Call `act` instead of what a browser does with a form. */
export function submitting(form, act) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    act();
  });
}

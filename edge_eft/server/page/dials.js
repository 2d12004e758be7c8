/** The dials: how strongly the delta acts. */

/** The dials that a conversation begins with. `mix` null: the recipe's. `only`: one model alone. */
export function startDials() {
  return { mode: "alpha", alpha: 1, beta: 1, mix: null, only: null };
}

/**
 * The weights that dials stand for.
 * @returns {import("./weights.js").Weights}
 */
export function weightsOf({ mode, alpha, beta, mix, only }, deltas) {
  if (only) {
    return { only };
  }
  const mixed = mix ? { mix: { ...deltas, ...mix } } : {};
  return mode === "beta" ? { beta, ...mixed } : { alpha, ...mixed };
}

export function mountDials(app, root) {}

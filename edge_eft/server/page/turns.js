/** To come. */
export function mountTurns(app, root) {}

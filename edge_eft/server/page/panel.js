/** To come. */
export function mountPanel(app, root) {}

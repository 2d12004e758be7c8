/** To come. */
export function mountStatus(app, root) {}

/** To come. */
export function mountCompare(app, root) {}

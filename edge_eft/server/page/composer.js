/** To come. */
export function mountComposer(app, root) {}

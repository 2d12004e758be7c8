/** To come. */
export function mountSidebar(app, root) {}

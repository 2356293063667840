// Where the site is: scripts lie in static/, directly under its root, which need not be the domain's.

const ROOT = new URL("../", import.meta.url);

export const at = (path) => new URL(path, ROOT).pathname;

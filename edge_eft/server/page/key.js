/** Asks for the server's key, where it wants one. */

/** @returns {Promise<?string>} */
export async function askForKey() {
  return null;
}

/** Small things that the browser keeps; where it keeps none, nothing is lost but the habit. */

/** What was kept under a name, or "". */
export function recall(name) {
  try {
    return localStorage.getItem(`edge_eft.${name}`) ?? "";
  } catch {
    return "";
  }
}

/** Keep a text under a name; "" is nothing to keep. */
export function remember(name, text) {
  try {
    if (text) {
      localStorage.setItem(`edge_eft.${name}`, text);
    } else {
      localStorage.removeItem(`edge_eft.${name}`);
    }
  } catch {
    // There is no storage, or no room.
  }
}

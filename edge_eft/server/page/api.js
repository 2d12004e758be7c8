/** The server, as the page asks it: nothing here that other clients could not ask. */

/** What the server refused, or that it cannot be reached (`status` 0: the connection failed). */
class ApiError extends Error {
  constructor(status, message, code = "") {
    super(message);
    this.status = status;
    this.code = code;
  }
}

const KEY = "edge_eft.key";

export class Api {
  /**
   * @param {(wasRefused: boolean) => Promise<?string>} askForKey  asks the person, telling whether
   *   there was a key; null: no answer
   */
  constructor(askForKey) {
    this.askForKey = askForKey;
    this.key = sessionStorage.getItem(KEY) ?? "";
  }

  async models() {
    return (await this.#json("/v1/models")).data;
  }

  /** What /health says, whatever its status; {"status": "gone"} where nobody answers. */
  async health() {
    try {
      const response = await fetch("/health", { cache: "no-store" });
      return await response.json();
    } catch {
      return { status: "gone" };
    }
  }

  /**
   * Yield the objects of a streamed chat completion. An error in mid-stream is thrown as ApiError.
   * @param {Object} body
   * @param {AbortSignal} signal
   */
  async *chat(body, signal) {
    const response = await this.#ask("/v1/chat/completions", body, signal);
    for await (const data of eventData(response.body)) {
      if (data === "[DONE]") {
        return;
      }
      const event = JSON.parse(data);
      if (event.error) {
        throw new ApiError(200, event.error.message, event.error.code ?? "");
      }
      yield event;
    }
    throw new ApiError(0, "the connection ended before the reply did");
  }

  /**
   * Turn the dials of a reply that is coming, or stop it.
   * @param {string} id  of its first chunk
   * @param {"set_weights" | "stop"} action
   */
  async control(id, action, weights = {}) {
    return this.#json("/v1/chat/completions/control", { id, action, ...weights });
  }

  async #json(path, body) {
    return (await this.#ask(path, body)).json();
  }

  /** Ask, with the key if there is one; a person is asked for it where the server wants one. */
  async #ask(path, body, signal) {
    for (;;) {
      const used = this.key;
      const response = await this.#fetch(path, body, signal);
      if (response.ok) {
        return response;
      }
      const error = await refusal(response);
      if (error.status === 401 && this.key !== used) {
        continue; // another request was given one meanwhile
      }
      const key = error.status === 401 ? await this.askForKey(used !== "") : null;
      if (!key) {
        throw error;
      }
      this.key = key;
      sessionStorage.setItem(KEY, key);
    }
  }

  async #fetch(path, body, signal) {
    const headers = this.key ? { Authorization: `Bearer ${this.key}` } : {};
    const asked = { headers, signal, cache: "no-store" };
    if (body !== undefined) {
      headers["Content-Type"] = "application/json";
      Object.assign(asked, { method: "POST", body: JSON.stringify(body) });
    }
    try {
      return await fetch(path, asked);
    } catch (error) {
      if (error.name === "AbortError") {
        throw error;
      }
      throw new ApiError(0, "the server cannot be reached");
    }
  }
}

async function refusal(response) {
  try {
    const { error } = await response.json();
    return new ApiError(response.status, error.message, error.code ?? "");
  } catch {
    return new ApiError(response.status, `the server answered ${response.status}`);
  }
}

/** Yield the data of a stream of events; comments and names of events are passed over. */
async function* eventData(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) {
        return;
      }
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (line.startsWith("data: ")) {
          yield line.slice(6).trimEnd();
        }
      }
    }
  } catch (error) {
    throw error.name === "AbortError" ? error : new ApiError(0, "the connection was lost");
  } finally {
    reader.cancel().catch(() => {});
  }
}

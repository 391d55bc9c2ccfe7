/** @file The server's REST interface. */

import { say } from "./strings.js";

/** Why the server refused, as a sentence. `status` is 0 where it did not answer at all. */
export class ApiError extends Error {
  /**
   * @param {string} message
   * @param {number} status
   * @param {number | null} [retryAfter] seconds
   * @param {import("./face-choice.js").Faces | null} [faces] of a picture whose face must be chosen
   */
  constructor(message, status, retryAfter = null, faces = null) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
    this.faces = faces;
  }

  /** Whether the same request may go through later, with nothing changed. */
  get passing() {
    return [0, 408, 429, 500, 502, 503, 504].includes(this.status);
  }
}

/** Requests with the key, if the server wants one. */
export class Api {
  /**
   * @param {() => string | null} readKey
   * @param {() => Promise<boolean>} askForKey whether a new one was given
   */
  constructor(readKey, askForKey) {
    this.readKey = readKey;
    this.askForKey = askForKey;
  }

  /**
   * An answer with a good status. Throws `ApiError` for any other.
   * @param {string} path
   * @param {RequestInit & {type?: string}} [options]
   * @returns {Promise<Response>}
   */
  async request(path, { type, ...options } = {}) {
    for (;;) {
      const headers = new Headers(options.headers);
      const key = this.readKey();
      if (key !== null) headers.set("Authorization", `Bearer ${key}`);
      if (type) headers.set("Content-Type", type);
      const answer = await fetch(path, { ...options, headers }).catch((error) => {
        if (error.name === "AbortError") throw error;
        throw new ApiError(say.unreachable, 0);
      });
      if (answer.ok) return answer;
      if (answer.status !== 401) throw await refusal(answer);
      if (this.readKey() === key && !(await this.askForKey())) throw new ApiError(say.keyNeeded, 401);
    }
  }

  /**
   * @param {string} path
   * @param {RequestInit} [options]
   * @returns {Promise<any>}
   */
  async get(path, options) {
    return (await this.request(path, options)).json();
  }

  /**
   * @param {string} path
   * @param {unknown} body to be sent as JSON
   * @param {RequestInit} [options]
   * @returns {Promise<any>}
   */
  async post(path, body, options) {
    const sent = { ...options, method: "POST", body: JSON.stringify(body), type: "application/json" };
    return (await this.request(path, sent)).json();
  }
}

/**
 * @param {Response} answer
 * @returns {Promise<ApiError>}
 */
async function refusal(answer) {
  const { detail, faces, picture } = await answer.json().catch(() => ({ detail: null }));
  const said = Array.isArray(detail) ? detail.map((fault) => fault.msg).join("; ") : detail;
  const after = Number(answer.headers.get("Retry-After"));
  return new ApiError(said ?? say.answered(answer.status), answer.status, after > 0 ? after : null, picture ? { faces, picture } : null);
}

/**
 * @file Saving a picture or a recording of the result. The server makes both, so that both carry the mark that says
 * that they are synthetic; this browser saves them.
 */

import { ApiError } from "./api.js";
import { make } from "./dom.js";
import { sleep } from "./time.js";

const RECORDINGS = "/api/v1/recordings";
const LOOK_EVERY_MS = 5000;
const LOOK_AGAIN_MS = 500;
/** A server that does not answer is asked for a recording that long. */
const PATIENCE_MS = 60_000;

/**
 * @typedef {object} Info
 * @property {string} recording_id
 * @property {"recording" | "finished" | "failed"} state
 * @property {string | null} url from where the recorded part is fetched
 * @property {string | null} note why it ended before it was stopped, or failed
 */

/**
 * Save the frame that a session sent last. Throws `ApiError`.
 * @param {import("./api.js").Api} api
 * @param {string} session its id
 * @returns {Promise<string>} the file's name
 */
export async function savePicture(api, session) {
  const answer = await api.request(`/api/v1/sessions/${session}/picture`);
  return save(await answer.blob(), "png");
}

/** A recording that the server makes of a session. Begin with `Recording.start`, end with `stop`. */
export class Recording {
  #over = false;

  /**
   * Throws `ApiError`.
   * @param {import("./api.js").Api} api
   * @param {string} session its id
   * @param {() => void} onEnded called when it ended without `stop`, as its session ended or the server's disk is full
   */
  static async start(api, session, onEnded) {
    const info = await api.post(`/api/v1/sessions/${session}/recording`, {});
    return new Recording(api, session, info.recording_id, onEnded);
  }

  /**
   * @param {import("./api.js").Api} api
   * @param {string} session
   * @param {string} id
   * @param {() => void} onEnded
   */
  constructor(api, session, id, onEnded) {
    this.api = api;
    this.session = session;
    this.id = id;
    this.begun = performance.now();
    void this.#watch(onEnded);
  }

  /** Seconds recorded so far. */
  get seconds() {
    return (performance.now() - this.begun) / 1000;
  }

  /**
   * End the recording, save the file, and delete it on the server. Throws `ApiError`.
   * @returns {Promise<{name: string, note: string | null}>} the file's name, and a note about it
   */
  async stop() {
    this.#over = true;
    const info = await this.#finished();
    if (info.url === null) throw new ApiError(info.note ?? "", 500);
    const path = `${RECORDINGS}/${this.id}`;
    const name = save(await (await this.api.request(path)).blob(), "mp4");
    await this.api.request(path, { method: "DELETE" }).catch(() => {}); // then the server keeps it
    return { name, note: info.note };
  }

  /** @returns {Promise<Info>} */
  async #finished() {
    const until = performance.now() + PATIENCE_MS;
    for (;;) {
      try {
        await this.api.request(`/api/v1/sessions/${this.session}/recording`, { method: "DELETE" }).catch(gone);
        const info = await this.#look();
        if (info.state !== "recording") return info;
      } catch (error) {
        if (!(error instanceof ApiError && error.passing) || performance.now() > until) throw error;
      }
      await sleep(LOOK_AGAIN_MS);
    }
  }

  /** @returns {Promise<Info>} */
  async #look() {
    const { recordings } = await this.api.get(RECORDINGS);
    const found = recordings.find((/** @type {Info} */ info) => info.recording_id === this.id);
    if (!found) throw new ApiError("", 404);
    return found;
  }

  /** @param {() => void} onEnded */
  async #watch(onEnded) {
    while (!this.#over) {
      await sleep(LOOK_EVERY_MS);
      const runs = await this.#look().then(
        ({ state }) => state === "recording",
        (error) => !(error instanceof ApiError) || error.status !== 404,
      );
      if (!runs && !this.#over) return onEnded();
    }
  }
}

/**
 * The session, or its recording, has ended before.
 * @param {unknown} error
 */
function gone(error) {
  if (!(error instanceof ApiError) || error.status !== 404) throw error;
}

/**
 * @param {Blob} file
 * @param {string} suffix
 * @returns {string} the name it is saved under
 */
function save(file, suffix) {
  const now = new Date();
  const local = new Date(now.getTime() - 60_000 * now.getTimezoneOffset());
  const time = local.toISOString().slice(0, 19).replace("T", "-").replaceAll(":", "");
  const name = `personalive-synthetic-${time}.${suffix}`;
  const url = URL.createObjectURL(file);
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
  return name;
}

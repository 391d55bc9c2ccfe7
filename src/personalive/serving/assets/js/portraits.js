/** @file The portraits of this visit: pictures, and what the server calls them. */

import { ApiError } from "./api.js";
import { say } from "./strings.js";

const KINDS = ["image/jpeg", "image/png", "image/webp"];
const MOST_BYTES = 20_000_000;
const PATH = "/api/v1/personalive/reference";

/** One picture, and its reference on the server once it has been sent there. */
export class Portrait {
  /**
   * @param {string} name
   * @param {Blob} picture
   */
  constructor(name, picture) {
    this.name = name;
    this.picture = picture;
    this.url = URL.createObjectURL(picture);
    this.lenient = false;
    /** @type {string | null} */
    this.referenceId = null;
    /** By what name the browser keeps the picture. @type {string | null} */
    this.key = null;
  }

  /**
   * The server's id of it; sends it there first where that has not been done. Throws `ApiError`.
   * @param {import("./api.js").Api} api
   * @param {AbortSignal} [signal]
   * @returns {Promise<string>}
   */
  async reference(api, signal) {
    if (this.referenceId === null) {
      const path = this.lenient ? `${PATH}?allow_no_face=true` : PATH;
      const sent = { method: "POST", body: this.picture, type: "application/octet-stream", signal };
      const answer = await (await api.request(path, sent)).json();
      this.referenceId = answer.reference_id;
    }
    return /** @type {string} */ (this.referenceId);
  }

  /**
   * Find out whether the server still has it: one that was started again has forgotten everything.
   * @param {import("./api.js").Api} api
   * @param {AbortSignal} signal
   */
  async recheck(api, signal) {
    if (this.referenceId === null) return;
    try {
      await api.get(`${PATH}/${this.referenceId}`, { signal });
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 404) throw error;
      this.referenceId = null;
    }
  }
}

/** A picture that cannot be used, in a sentence. */
export class PictureError extends Error {}

/**
 * A portrait from a file. Throws `PictureError`.
 * @param {Blob} file
 * @param {string} name
 * @returns {Promise<Portrait>}
 */
export async function readPortrait(file, name) {
  if (!KINDS.includes(file.type)) throw new PictureError(say.notAPicture(name));
  if (file.size > MOST_BYTES) throw new PictureError(say.pictureTooLarge(name));
  try {
    (await createImageBitmap(file)).close();
  } catch {
    throw new PictureError(say.notAPicture(name));
  }
  return new Portrait(name, file);
}

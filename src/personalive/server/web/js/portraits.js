/** @file The portraits of this visit: pictures, and their ids on the server. */

import { ApiError } from "./api.js";
import { say } from "./strings.js";

const MOST_BYTES = 100_000_000;
const HEIF_BRANDS = ["heic", "heix", "heim", "heis", "mif1", "miaf", "avif", "avis", "msf1", "hevc", "hevx"];
/** The placeholder of a picture that this browser cannot show, until the server has made one that it can. */
const NOT_SHOWN =
  "data:image/svg+xml," +
  encodeURIComponent(
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64" fill="#777"><circle cx="32" cy="24" r="11"/>' +
      '<path d="M11 56a21 18 0 0 1 42 0z"/></svg>',
  );
const PATH = "/api/v1/personalive/reference";

/** One picture, and its reference on the server once it has been sent there. */
export class Portrait {
  /**
   * @param {string} name
   * @param {Blob} picture
   * @param {boolean} shown whether this browser can show it
   */
  constructor(name, picture, shown = true) {
    this.name = name;
    this.picture = picture;
    this.shown = shown;
    this.url = shown ? URL.createObjectURL(picture) : NOT_SHOWN;
    /** Called when `url` has become another. @type {() => void} */
    this.onShown = () => {};
    this.lenient = false;
    /** Which face is meant, as the server is asked for it. @type {Record<string, string>} */
    this.face = {};
    /** @type {string | null} */
    this.referenceId = null;
    /** The name under which the browser keeps the picture. @type {string | null} */
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
      const query = new URLSearchParams({ ...(this.lenient && { allow_no_face: "true" }), ...this.face }).toString();
      const path = query ? `${PATH}?${query}` : PATH;
      const sent = { method: "POST", body: this.picture, type: "application/octet-stream", signal };
      const answer = await (await api.request(path, sent)).json();
      this.referenceId = answer.reference_id;
      if (!this.shown) await this.#show(api);
    }
    return /** @type {string} */ (this.referenceId);
  }

  /** Take the server's small picture of it. @param {import("./api.js").Api} api */
  async #show(api) {
    const answer = await api.request(`${PATH}/${this.referenceId}/thumbnail`);
    this.url = URL.createObjectURL(await answer.blob());
    this.shown = true;
    this.onShown();
  }

  /**
   * Find out whether the server still has it, since a restarted server has lost all portraits.
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
  const kind = await kindOf(file);
  if (kind === null) throw new PictureError(say.notAPicture(name));
  if (file.size > MOST_BYTES) throw new PictureError(say.pictureTooLarge(name));
  try {
    (await createImageBitmap(file)).close();
  } catch {
    // Few browsers show HEIC, and some give up on very large pictures: the server will say whether it can be used.
    if (kind !== "heif" && kind !== "jpeg") throw new PictureError(say.notAPicture(name));
    return new Portrait(name, file, false);
  }
  return new Portrait(name, file);
}

/**
 * What a file's first bytes say that it is: some systems do not know the type of a HEIC.
 * @param {Blob} file
 * @returns {Promise<"jpeg" | "png" | "webp" | "heif" | null>}
 */
async function kindOf(file) {
  const bytes = new Uint8Array(await file.slice(0, 12).arrayBuffer());
  const head = String.fromCharCode(...bytes);
  if (head.startsWith("\xff\xd8\xff")) return "jpeg";
  if (head.startsWith("\x89PNG")) return "png";
  if (head.startsWith("RIFF") && head.endsWith("WEBP")) return "webp";
  return head.slice(4, 8) === "ftyp" && HEIF_BRANDS.includes(head.slice(8)) ? "heif" : null;
}

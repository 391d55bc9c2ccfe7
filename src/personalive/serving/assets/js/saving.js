/** @file Keeping what is seen: a picture, or a recording. Both are made in the browser, as the server sent them. */

import { make } from "./dom.js";

const KINDS = ["video/mp4;codecs=avc1", "video/webm;codecs=vp9", "video/webm;codecs=vp8", "video/webm"];
const BITS_PER_SECOND = 6_000_000;
const PIECE_MS = 1000;

/** The kind of file that this browser records, or null. */
export function recordedKind() {
  const known = (/** @type {string} */ kind) => MediaRecorder.isTypeSupported(kind);
  return globalThis.MediaRecorder ? (KINDS.find(known) ?? null) : null;
}

/**
 * Save the frame that a video shows.
 * @param {HTMLVideoElement} video
 * @returns {Promise<string>} the file's name
 */
export async function saveFrame(video) {
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  canvas.getContext("2d")?.drawImage(video, 0, 0);
  return save(await canvas.convertToBlob({ type: "image/png" }), "png");
}

/** Records a stream until it is stopped, or its stream ends. */
export class Recording {
  /** @type {Blob[]} */ #pieces = [];

  /**
   * @param {MediaStream} stream
   * @param {(name: string, cut: boolean) => void} onSaved the file's name, and whether nobody had asked for its end
   */
  constructor(stream, onSaved) {
    const kind = /** @type {string} */ (recordedKind());
    let asked = false;
    this.begun = performance.now();
    const recorder = new MediaRecorder(stream, { mimeType: kind, videoBitsPerSecond: BITS_PER_SECOND });
    recorder.ondataavailable = ({ data }) => void this.#pieces.push(data);
    recorder.onstop = () => {
      const type = kind.split(";")[0];
      onSaved(save(new Blob(this.#pieces, { type }), type.split("/")[1]), !asked);
    };
    recorder.start(PIECE_MS);
    /** End it and save the file. */
    this.stop = () => {
      asked = true;
      if (recorder.state !== "inactive") recorder.stop();
    };
  }

  /** Seconds recorded so far. */
  get seconds() {
    return (performance.now() - this.begun) / 1000;
  }
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

/** @file Drivers of the portrait: a camera, or a video file that is played like a camera. */

import { say, text } from "./strings.js";

/** A driver that cannot be opened, as a sentence. `cause` is the browser's error name, such as "NotAllowedError". */
export class DriverError extends Error {
  /**
   * @param {string} message
   * @param {string} [cause]
   */
  constructor(message, cause = "") {
    super(message);
    this.cause = cause;
  }
}

/** @typedef {"camera" | "file" | "sample"} Kind */

/**
 * A source of driving frames. It has a `stream` from `open` on. `release` gives the camera back until `open` is called
 * again; `stop` ends it for good. `onEnded` is called when it ends without `stop`.
 * @typedef {object} Driver
 * @property {Kind} kind
 * @property {string} name
 * @property {MediaStream | null} stream
 * @property {boolean} mirrored whether people expect to see it as in a mirror
 * @property {Blob | null} file what is played
 * @property {string | null} key by what name the browser keeps the file
 * @property {string | null} deviceId
 * @property {(() => void) | null} onEnded
 * @property {() => Promise<void>} open throws `DriverError`
 * @property {(paused: boolean) => void} pause
 * @property {() => void} release
 * @property {() => void} stop
 */

/** @implements {Driver} */
export class Camera {
  kind = /** @type {const} */ ("camera");
  name = text.camera;
  file = null;
  key = null;
  mirrored = true;
  /** @type {MediaStream | null} */ stream = null;
  /** @type {(() => void) | null} */ onEnded = null;
  #turn = 0;

  /** @param {string | null} deviceId any camera if null */
  constructor(deviceId) {
    this.deviceId = deviceId;
  }

  async open() {
    if (this.stream?.active) return;
    if (!navigator.mediaDevices) throw new DriverError(say.cameraInsecure);
    const turn = ++this.#turn;
    const stream = await this.#ask();
    if (turn !== this.#turn) return stop(stream); // given back while the browser still asked
    const [track] = stream.getVideoTracks();
    const { deviceId, facingMode } = track.getSettings();
    track.contentHint = "motion";
    track.onended = () => this.onEnded?.();
    this.deviceId = deviceId ?? null;
    this.mirrored = facingMode !== "environment";
    this.stream = stream;
  }

  pause() {}

  release() {
    this.#turn++;
    if (this.stream) stop(this.stream);
    this.stream = null;
  }

  stop() {
    this.release();
  }

  async #ask() {
    const wish = { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 } };
    const asked = (/** @type {MediaTrackConstraints} */ which) =>
      navigator.mediaDevices.getUserMedia({ video: { ...wish, ...which } });
    try {
      if (this.deviceId === null) return await asked({ facingMode: "user" });
      return await asked({ deviceId: { exact: this.deviceId } }).catch((error) => {
        if (error.name !== "OverconstrainedError") throw error;
        return asked({ facingMode: "user" }); // that camera is not there any more
      });
    } catch (error) {
      const { name, message } = /** @type {DOMException} */ (error);
      throw new DriverError(whyNoCamera(name, message), name);
    }
  }
}

/** A video file that is played in a loop. @implements {Driver} */
export class Clip {
  deviceId = null;
  mirrored = false;
  /** @type {string | null} */ key = null;
  /** @type {MediaStream | null} */ stream = null;
  /** @type {(() => void) | null} */ onEnded = null;
  /** @type {HTMLVideoElement | null} */ #player = null;
  /** @type {MediaStream | null} */ #heard = null;
  #silent = false;

  /**
   * @param {Blob} file
   * @param {string} name
   * @param {"file" | "sample"} kind
   */
  constructor(file, name, kind) {
    this.file = file;
    this.name = name;
    this.kind = kind;
  }

  async open() {
    if (this.stream) return;
    const player = document.createElement("video");
    const url = URL.createObjectURL(this.file);
    Object.assign(player, { muted: true, loop: true, playsInline: true, src: url });
    try {
      await player.play();
      if (player.videoWidth === 0) throw new Error("no picture");
    } catch {
      URL.revokeObjectURL(url);
      throw new DriverError(say.notAVideo(this.name));
    }
    this.#player = player;
    this.stream = captured(player);
    const audio = this.stream.getAudioTracks();
    this.#silent = audio.length === 0 && Reflect.has(player, "captureStream");
    for (const track of audio) this.stream.removeTrack(track);
    for (const track of this.stream.getVideoTracks()) {
      track.contentHint = "motion";
      track.onended = () => this.onEnded?.();
    }
  }

  /** @param {boolean} paused */
  pause(paused) {
    if (paused) this.#player?.pause();
    else this.#player?.play().catch(() => {}); // stopped meanwhile
  }

  release() {}

  /**
   * The clip's sound, which is not played here; null where it has none, or the browser does not give it.
   * @returns {Promise<MediaStreamTrack | null>}
   */
  async sound() {
    if (this.#player !== null && !this.#silent) this.#heard ??= await heardFrom(this.#player);
    return this.#heard?.getAudioTracks()[0] ?? null;
  }

  stop() {
    if (this.#heard) stop(this.#heard);
    this.#heard = null;
    if (this.stream) stop(this.stream);
    this.stream = null;
    const player = this.#player;
    this.#player = null;
    if (player === null) return;
    player.pause();
    URL.revokeObjectURL(player.src);
    player.removeAttribute("src");
  }
}

/**
 * A video's sound, led past the speakers: a video that is muted gives silence.
 * @param {HTMLVideoElement} player
 */
async function heardFrom(player) {
  const context = new AudioContext();
  const out = context.createMediaStreamDestination();
  context.createMediaElementSource(player).connect(out);
  player.muted = false;
  await context.resume();
  return out.stream;
}

/** Returns the available cameras; without names until one has been allowed. */
export async function cameras() {
  const devices = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
  return devices
    .filter((device) => device.kind === "videoinput" && device.deviceId !== "")
    .map((device, index) => ({ id: device.deviceId, name: device.label || say.unnamedCamera(index + 1) }));
}

/** @param {MediaStream} stream */
function stop(stream) {
  for (const track of stream.getTracks()) track.stop();
}

/**
 * @param {string} cause
 * @param {string} message
 */
function whyNoCamera(cause, message) {
  switch (cause) {
    case "NotAllowedError":
    case "SecurityError":
      return say.cameraBlocked;
    case "NotFoundError":
    case "OverconstrainedError":
      return say.noCamera;
    case "NotReadableError":
    case "AbortError":
      return say.cameraTaken;
    default:
      return say.cameraFailed(message);
  }
}

/**
 * Safari has no `captureStream` of a video; a canvas replaces it there.
 * @param {HTMLVideoElement} player
 * @returns {MediaStream}
 */
function captured(player) {
  const own = Reflect.get(player, "captureStream") ?? Reflect.get(player, "mozCaptureStream");
  if (own) return own.call(player);
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d");
  if (!context || !canvas.captureStream || !player.requestVideoFrameCallback) throw new DriverError(say.noCapture);
  canvas.width = player.videoWidth;
  canvas.height = player.videoHeight;
  const draw = () => {
    context.drawImage(player, 0, 0);
    player.requestVideoFrameCallback(draw);
  };
  draw();
  return canvas.captureStream();
}

/** @file The sound that goes out with the result: the microphone's beside a camera, or that of a clip. Off at first. */

import { byId } from "./dom.js";
import { Clip } from "./drivers.js";
import { say } from "./strings.js";

/** What a microphone in a room with speakers needs. */
const MICROPHONE = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };

/**
 * The buttons Sound and Listen. The microphone is asked for when Sound is pressed, and given back when it is pressed
 * once more or the session ends.
 */
export class Sound {
  #on = false;
  /** @type {import("./drivers.js").Driver | null} */ #driver = null;
  /** @type {MediaStreamTrack | null} */ #microphone = null;
  #turn = 0;

  /**
   * @param {import("./session.js").Session} session
   * @param {HTMLVideoElement} result
   * @param {(sentence: string) => void} announce
   */
  constructor(session, result, announce) {
    this.session = session;
    this.result = result;
    this.announce = announce;
    this.button = byId("sound");
    this.listen = byId("listen");
    this.button.onclick = () => void this.#switch(!this.#on);
    this.listen.onclick = () => this.#play(this.result.muted);
  }

  /**
   * Send this driver's sound, if sound is on.
   * @param {import("./drivers.js").Driver | null} driver
   */
  useDriver(driver) {
    if (driver === this.#driver) return;
    this.#driver = driver;
    if (this.#on) void this.#switch(driver !== null);
  }

  /** Switch it off where the connection that is there now carries none, and say so. */
  checkConnection() {
    if (!this.#on || this.session.carriesSound) return;
    void this.#switch(false, false);
    this.announce(say.noSoundByWebSocket);
  }

  /** Switch it off: the session is over. */
  end() {
    if (this.#on) void this.#switch(false, false);
  }

  /**
   * @param {boolean} on
   * @param {boolean} [told] whether to announce it
   */
  async #switch(on, told = true) {
    if (on && !this.session.carriesSound) return this.announce(say.noSoundByWebSocket);
    const turn = ++this.#turn;
    let track = null;
    try {
      track = on ? await this.#open() : null;
    } catch (error) {
      told = false;
      this.announce(whyNoMicrophone(/** @type {DOMException} */ (error)));
    }
    if (turn !== this.#turn) {
      if (track !== this.#microphone && !(this.#driver instanceof Clip)) track?.stop();
      return;
    }
    if (track === null && on && told) this.announce(say.noSoundInVideo);
    else if (told) this.announce(on ? say.soundOn : say.soundOff);
    this.#on = track !== null;
    const before = this.#microphone;
    this.#microphone = this.#driver instanceof Clip ? null : track;
    if (before !== this.#microphone) before?.stop();
    if (track && this.#microphone) track.onended = () => void this.#switch(false);
    this.#show();
    await this.session.useSound(track).catch((error) => this.#fail(error));
  }

  /** @param {Error} error */
  #fail(error) {
    void this.#switch(false, false);
    this.announce(say.microphoneFailed(error.message));
  }

  async #open() {
    if (this.#driver instanceof Clip) return this.#driver.sound();
    if (!navigator.mediaDevices) throw new DOMException("", "SecurityError");
    const stream = await navigator.mediaDevices.getUserMedia({ audio: MICROPHONE });
    return stream.getAudioTracks()[0];
  }

  #show() {
    this.button.setAttribute("aria-pressed", String(this.#on));
    this.listen.hidden = !this.#on;
    if (!this.#on) this.#play(false);
  }

  /** @param {boolean} audible */
  #play(audible) {
    this.result.muted = !audible;
    this.listen.setAttribute("aria-pressed", String(audible));
  }
}

/** @param {DOMException} error */
function whyNoMicrophone({ name, message }) {
  if (!window.isSecureContext) return say.microphoneInsecure;
  if (name === "NotAllowedError" || name === "SecurityError") return say.microphoneBlocked;
  return name === "NotFoundError" ? say.noMicrophone : say.microphoneFailed(message);
}

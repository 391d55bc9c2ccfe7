/** @file Notices that a server has fallen silent: it sends a message once a second. */

const SILENCE_MS = 8000;

/** Calls back once nothing has been heard for `SILENCE_MS`. */
export class SilenceTimer {
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer;
  #onSilent;

  /** @param {() => void} onSilent */
  constructor(onSilent) {
    this.#onSilent = onSilent;
  }

  /** Start, or start over: something was heard. */
  restart() {
    this.stop();
    this.#timer = setTimeout(this.#onSilent, SILENCE_MS);
  }

  stop() {
    clearTimeout(this.#timer);
  }
}

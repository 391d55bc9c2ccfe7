/** @file The buttons below the picture. */

import { byId, changeIcon } from "./dom.js";
import { Recording, recordedKind, saveFrame } from "./saving.js";
import { say, text } from "./strings.js";

/**
 * What the buttons act on.
 * @typedef {object} Acts
 * @property {(paused: boolean) => void} pause
 * @property {() => void} reset
 * @property {(sentence: string) => void} announce something done, in words
 */

/** Pause, reset, compare, mirror; save, record, picture in picture, full screen. */
export class Toolbar {
  /** @type {Recording | null} */ #recording = null;
  /** @type {ReturnType<typeof setInterval> | undefined} */ #clock;

  /**
   * @param {import("./screen.js").Screen} screen
   * @param {Acts} acts
   */
  constructor(screen, acts) {
    this.screen = screen;
    this.acts = acts;
    this.pause = byId("pause");
    this.pause.onclick = () => this.acts.pause(this.pause.dataset.paused === undefined);
    byId("reset").onclick = () => this.acts.reset();
    for (const input of document.querySelectorAll("input[name=compare]")) {
      input.addEventListener("change", () => {
        const { value } = /** @type {HTMLInputElement} */ (input);
        screen.compare(/** @type {import("./screen.js").Compare} */ (value));
      });
    }
    const mirror = byId("mirror");
    mirror.onclick = () => screen.mirror(press(mirror));
    byId("snapshot").onclick = async () => acts.announce(say.saved(await saveFrame(screen.result)));
    this.record = byId("record");
    this.record.onclick = () => this.#toggleRecording();
    this.record.hidden = recordedKind() === null;
    this.#pictureInPicture();
    this.#fullScreen();
  }

  /**
   * Show whether it is paused.
   * @param {boolean} paused
   */
  setPaused(paused) {
    this.pause.toggleAttribute("data-paused", paused);
    changeIcon(this.pause, paused ? "play" : "pause");
    const words = this.pause.querySelector("span");
    if (words) words.textContent = paused ? text.resume : text.pause;
  }

  /** End and save a recording, if one runs. */
  finish() {
    this.#recording?.stop();
  }

  #toggleRecording() {
    if (this.#recording) return this.#recording.stop();
    const stream = this.screen.result.srcObject;
    if (!(stream instanceof MediaStream)) return;
    this.#recording = new Recording(stream, (name, cut) => {
      this.#recording = null;
      clearInterval(this.#clock);
      this.#showRecording();
      this.acts.announce(cut ? say.recordingCut(name) : say.saved(name));
    });
    this.#clock = setInterval(() => this.#showRecording(), 500);
    this.#showRecording();
    this.acts.announce(say.recording);
  }

  #showRecording() {
    const runs = this.#recording !== null;
    this.record.toggleAttribute("data-recording", runs);
    changeIcon(this.record, runs ? "stop" : "record");
    this.record.setAttribute("aria-label", runs ? text.stopRecording : text.record);
    this.record.title = runs ? text.stopRecording : text.record;
    byId("record-time").textContent = this.#recording ? say.recordingFor(this.#recording.seconds) : "";
  }

  #pictureInPicture() {
    const button = byId("pip");
    button.hidden = !document.pictureInPictureEnabled;
    button.onclick = () =>
      document.pictureInPictureElement
        ? document.exitPictureInPicture()
        : this.screen.result.requestPictureInPicture();
  }

  #fullScreen() {
    const button = byId("full");
    button.hidden = !document.fullscreenEnabled;
    button.onclick = () => (document.fullscreenElement ? document.exitFullscreen() : byId("result").requestFullscreen());
    document.addEventListener("fullscreenchange", () => {
      const label = document.fullscreenElement ? text.leaveFull : text.full;
      button.setAttribute("aria-label", label);
      button.title = label;
    });
  }
}

/**
 * Turn a button that stays pressed.
 * @param {HTMLElement} button
 * @returns {boolean} whether it is pressed now
 */
function press(button) {
  const pressed = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", String(pressed));
  return pressed;
}

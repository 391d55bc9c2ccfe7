/** @file The buttons below the picture. */

import { ApiError } from "./api.js";
import { byId, changeIcon } from "./dom.js";
import { Recording, savePicture } from "./saving.js";
import { say, text } from "./strings.js";

/**
 * What the buttons act on.
 * @typedef {object} Acts
 * @property {(paused: boolean) => void} pause
 * @property {() => void} reset
 * @property {(sentence: string) => void} announce something done, in words
 * @property {import("./api.js").Api} api
 * @property {() => string | null} session the id of what streams
 */

/** @typedef {import("./drivers.js").Kind} Kind */

/** Pause, reset, compare, mirror; save, record, picture in picture, full screen. */
export class Toolbar {
  /** @type {Recording | null} */ #recording = null;
  /** @type {ReturnType<typeof setInterval> | undefined} */ #clock;
  /** Whether each kind of driver is shown as in a mirror. @type {Partial<Record<Kind, boolean>>} */
  #mirrored = {};
  /** @type {Kind} */ #kind = "sample";
  #busy = false;

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
        this.#showRecording();
      });
    }
    this.mirror = byId("mirror");
    this.mirror.onclick = () => this.#setMirrored(!this.#mirrored[this.#kind]);
    byId("snapshot").onclick = () => void this.#savePicture();
    this.record = byId("record");
    this.record.onclick = () => void (this.#recording ? this.#saveRecording(this.#recording, false) : this.#begin());
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

  /**
   * Show this driver, one's own camera as in a mirror, until a person wants it otherwise.
   * @param {import("./drivers.js").Driver} driver
   */
  useDriver(driver) {
    this.#kind = driver.kind;
    this.#setMirrored(this.#mirrored[driver.kind] ?? driver.mirrored);
  }

  /**
   * Save what has been recorded, if anything is.
   * @param {boolean} cut whether nobody had asked for its end
   */
  finish(cut) {
    if (this.#recording) void this.#saveRecording(this.#recording, cut);
  }

  /** The recording that runs, for when the page is left. */
  get kept() {
    const recording = this.#recording;
    return recording && { session: recording.session, id: recording.id };
  }

  /**
   * Save a recording that ran when the page was left: the server has completed it.
   * @param {{session: string, id: string}} kept
   */
  async saveLeft({ session, id }) {
    const recording = new Recording(this.acts.api, session, id, () => {});
    await recording.stop().then(
      ({ name }) => this.acts.announce(say.recordingCut(name)),
      () => {}, // it was saved before, or the server has lost it
    );
  }

  /** What is kept between visits. */
  get view() {
    return { mirrored: { ...this.#mirrored }, compare: this.screen.stage.dataset.compare ?? "off" };
  }

  /**
   * Show the result as in an earlier visit.
   * @param {{mirrored: Partial<Record<string, boolean>>, compare: string}} view
   */
  restoreView({ mirrored, compare }) {
    this.#mirrored = { ...mirrored };
    for (const input of document.querySelectorAll("input[name=compare]")) {
      const one = /** @type {HTMLInputElement} */ (input);
      one.checked = one.value === compare;
      if (one.checked) this.screen.compare(/** @type {import("./screen.js").Compare} */ (compare));
    }
  }

  /** @param {boolean} mirrored */
  #setMirrored(mirrored) {
    this.#mirrored[this.#kind] = mirrored;
    this.mirror.setAttribute("aria-pressed", String(mirrored));
    this.screen.mirror(mirrored);
  }

  async #savePicture() {
    const session = this.acts.session();
    if (session === null) return;
    await this.#told(async () => say.saved(await savePicture(this.acts.api, session), this.#compares));
  }

  async #begin() {
    const session = this.acts.session();
    if (session === null || this.#busy) return;
    this.#busy = true;
    await this.#told(async () => {
      const recording = await Recording.start(this.acts.api, session, () => this.#saveRecording(recording, true));
      this.#recording = recording;
      this.#clock = setInterval(() => this.#showRecording(), 500);
      this.#showRecording();
      return say.recording(this.#compares);
    });
    this.#busy = false;
  }

  /**
   * @param {Recording} recording
   * @param {boolean} cut
   */
  async #saveRecording(recording, cut) {
    this.#recording = null;
    clearInterval(this.#clock);
    this.#showRecording();
    await this.#told(async () => {
      const { name, note } = await recording.stop();
      if (note) return say.savedWith(name, note);
      return cut ? say.recordingCut(name) : say.saved(name, this.#compares);
    });
  }

  /**
   * Announce what came of something, or why it failed.
   * @param {() => Promise<string>} act
   */
  async #told(act) {
    try {
      this.acts.announce(await act());
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.acts.announce(error.message || say.notSaved);
    }
  }

  /** Whether the driver is shown beside the result, which is saved alone. */
  get #compares() {
    return this.screen.stage.dataset.compare !== "off";
  }

  #showRecording() {
    const runs = this.#recording !== null;
    this.record.toggleAttribute("data-recording", runs);
    changeIcon(this.record, runs ? "stop" : "record");
    this.record.setAttribute("aria-label", runs ? text.stopRecording : text.record);
    this.record.title = runs ? text.stopRecording : text.record;
    const time = this.#recording ? say.recordingFor(this.#recording.seconds, this.#compares) : "";
    byId("record-time").textContent = time;
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

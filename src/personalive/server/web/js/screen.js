/** @file The stage: the result (the still portrait before it runs), the driver beside it, and messages. */

import { byId, make } from "./dom.js";
import { text } from "./strings.js";

/** @typedef {"off" | "side" | "overlay"} Compare */
/** @typedef {"plain" | "good" | "wait" | "bad"} Tone */

/** What is shown large. */
export class Screen {
  constructor() {
    this.stage = byId("stage");
    this.result = /** @type {HTMLVideoElement} */ (byId("result-video"));
    this.driver = /** @type {HTMLVideoElement} */ (byId("driver-video"));
    this.still = /** @type {HTMLImageElement} */ (byId("still"));
  }

  /**
   * The portrait as it was chosen.
   * @param {string} url
   */
  showStill(url) {
    this.still.src = url;
    this.still.hidden = false;
    byId("invite").hidden = true;
  }

  /**
   * The size of the result, in pixels.
   * @param {number} width
   * @param {number} height
   */
  shape(width, height) {
    this.stage.style.setProperty("--shape", String(width / height));
  }

  /** No portrait: the invitation to choose one. */
  showInvite() {
    this.still.hidden = true;
    this.still.removeAttribute("src");
    byId("invite").hidden = false;
  }

  /** @param {import("./drivers.js").Driver | null} driver */
  showDriver(driver) {
    const stream = driver?.stream ?? null;
    if (this.driver.srcObject !== stream) this.driver.srcObject = stream;
    byId("inset").hidden = stream === null;
    byId("inset-caption").textContent = driver?.kind === "camera" ? text.ownCamera : text.driverCaption;
  }

  /**
   * Show a stream as soon as it has a frame; until then, the still portrait.
   * @param {MediaStream} stream
   * @param {() => void} onFrame called at its first frame
   */
  showResult(stream, onFrame) {
    delete this.stage.dataset.live;
    this.result.srcObject = stream;
    const appear = () => {
      if (this.result.srcObject !== stream || this.result.videoWidth === 0) return;
      this.result.removeEventListener("timeupdate", appear);
      this.result.removeEventListener("loadeddata", appear);
      this.stage.dataset.live = "";
      this.shape(this.result.videoWidth, this.result.videoHeight);
      onFrame();
    };
    this.result.addEventListener("loadeddata", appear);
    this.result.addEventListener("timeupdate", appear);
    this.result.play().catch(() => {}); // replaced before it began
  }

  /** Back to the still portrait. */
  clearResult() {
    delete this.stage.dataset.live;
    this.result.srcObject = null;
  }

  /**
   * A large sentence while something is on its way; null for none.
   * @param {string | null} sentence
   * @param {number | null} [progress] 0…1, null if it is unknown
   */
  showStep(sentence, progress = null) {
    byId("step").hidden = sentence === null;
    byId("step-text").textContent = sentence ?? "";
    const bar = /** @type {HTMLProgressElement} */ (byId("step-bar"));
    if (progress === null) bar.removeAttribute("value");
    else bar.value = progress;
  }

  /**
   * Show the status below the picture, and announce it to screen readers.
   * @param {string} sentence
   * @param {Tone} [tone]
   * @param {{label: string, act: () => void} | null} [remedy]
   * @param {string} [aloud] what is read out: not each second of a countdown
   */
  tell(sentence, tone = "plain", remedy = null, aloud = sentence) {
    const told = byId("told");
    told.dataset.tone = tone;
    told.hidden = sentence === "";
    byId("told-text").textContent = sentence;
    const spoken = byId("told-aloud");
    // Set again, it would be read out again.
    if (spoken.textContent !== aloud) spoken.textContent = aloud;
    const button = told.querySelector("button");
    // The same button stays: it may have the focus.
    if (button && button.textContent === remedy?.label) return;
    button?.remove();
    if (remedy) told.append(make("button", { type: "button", class: "link", onclick: remedy.act }, remedy.label));
  }

  /** @param {Compare} compare */
  compare(compare) {
    this.stage.dataset.compare = compare;
  }

  /** @param {boolean} mirrored */
  mirror(mirrored) {
    this.stage.toggleAttribute("data-mirrored", mirrored);
  }
}

/** @file Choosing what drives the portrait. */

import { byId, complain, make } from "./dom.js";
import { cameras, DriverError, openCamera, playVideo } from "./drivers.js";
import { say, text } from "./strings.js";

const SAMPLE = "/assets/samples/driving.mp4";

/** @typedef {import("./drivers.js").Driver} Driver */

/** Holds the chosen driver. Calls `onChoose` with one that has just been chosen, or null when it is gone. */
export class DriverPicker {
  /** @type {Driver | null} */ chosen = null;
  #turn = 0;

  /** @param {(driver: Driver | null) => void} onChoose */
  constructor(onChoose) {
    this.onChoose = onChoose;
    this.problem = byId("driver-problem");
    this.devices = /** @type {HTMLSelectElement} */ (byId("cameras"));
    this.buttons = { camera: byId("driver-camera"), file: byId("driver-file"), sample: byId("driver-sample") };
    const input = /** @type {HTMLInputElement} */ (byId("video-file"));
    this.buttons.camera.onclick = () => this.#open("camera", () => openCamera(null));
    this.buttons.file.onclick = () => input.click();
    this.buttons.sample.onclick = () => this.#open("sample", playSample);
    this.devices.onchange = () => this.#open("camera", () => openCamera(this.devices.value));
    input.onchange = () => {
      const file = input.files?.[0];
      input.value = "";
      if (file) this.#open("file", () => playVideo(file, file.name, "file"));
    };
  }

  /**
   * @param {"camera" | "file" | "sample"} kind
   * @param {() => Promise<Driver>} open
   */
  async #open(kind, open) {
    const turn = ++this.#turn;
    complain(this.problem, null);
    this.buttons[kind].toggleAttribute("data-busy", true);
    try {
      const driver = await open();
      if (turn === this.#turn) this.#use(driver);
      else driver.stop();
    } catch (error) {
      if (!(error instanceof DriverError)) throw error;
      complain(this.problem, error.message);
    } finally {
      this.buttons[kind].removeAttribute("data-busy");
    }
  }

  /** @param {Driver} driver */
  async #use(driver) {
    const before = this.chosen;
    this.chosen = driver;
    driver.stream.getVideoTracks()[0].onended = () => this.#gone(driver);
    this.#mark();
    this.onChoose(driver);
    before?.stop();
    await this.#listCameras();
  }

  /** @param {Driver} driver */
  #gone(driver) {
    if (this.chosen !== driver) return;
    this.chosen = null;
    this.#mark();
    complain(this.problem, say.cameraStopped);
    this.onChoose(null);
  }

  #mark() {
    for (const [kind, button] of Object.entries(this.buttons)) {
      button.setAttribute("aria-pressed", String(this.chosen?.kind === kind));
    }
    byId("driver-name").textContent = this.chosen?.kind === "file" ? this.chosen.name : "";
  }

  async #listCameras() {
    const found = this.chosen?.kind === "camera" ? await cameras() : [];
    byId("camera-row").hidden = found.length < 2;
    this.devices.replaceChildren(...found.map(({ id, name }) => make("option", { value: id }, name)));
    if (this.chosen?.deviceId) this.devices.value = this.chosen.deviceId;
  }
}

async function playSample() {
  const clip = await (await fetch(SAMPLE)).blob();
  return playVideo(clip, text.sampleClip, "sample");
}

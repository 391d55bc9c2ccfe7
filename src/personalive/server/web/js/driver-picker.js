/** @file Choosing what drives the portrait. */

import { byId, complain, make } from "./dom.js";
import { Camera, cameras, Clip, DriverError } from "./drivers.js";
import { forgetFile, keepFile, keptFile } from "./storage.js";
import { say, text } from "./strings.js";

const SAMPLE = "/assets/samples/driving.mp4";

/** @typedef {import("./drivers.js").Driver} Driver */

/** Holds the chosen driver. Calls `onChoose` with one that has just been chosen, or null when it is gone. */
export class DriverPicker {
  /** @type {Driver | null} */ chosen = null;
  /** The browser's error about the camera that cannot be opened. @type {string} */
  #cause = "";
  #turn = 0;

  /** @param {(driver: Driver | null) => void} onChoose */
  constructor(onChoose) {
    this.onChoose = onChoose;
    this.problem = byId("driver-problem");
    this.devices = /** @type {HTMLSelectElement} */ (byId("cameras"));
    this.buttons = { camera: byId("driver-camera"), file: byId("driver-file"), sample: byId("driver-sample") };
    const input = /** @type {HTMLInputElement} */ (byId("video-file"));
    this.buttons.camera.onclick = () => this.#choose("camera", async () => new Camera(null));
    this.buttons.file.onclick = () => input.click();
    this.buttons.sample.onclick = () => this.#choose("sample", sample);
    this.devices.onchange = () => this.#choose("camera", async () => new Camera(this.devices.value));
    input.onchange = () => {
      const file = input.files?.[0];
      input.value = "";
      if (file) this.#choose("file", async () => new Clip(file, file.name, "file"));
    };
    this.#watchCameras();
  }

  /**
   * Take what was chosen before the page was loaded again. A camera stays off until the start.
   * @param {NonNullable<import("./storage.js").Choices["driver"]>} kept
   */
  async restore({ kind, name, deviceId, key }) {
    if (kind === "camera") return this.#use(new Camera(deviceId));
    if (kind === "sample") return this.#choose("sample", sample);
    const file = key === null ? null : await keptFile(key);
    if (file) await this.#choose("file", async () => Object.assign(new Clip(file, name, "file"), { key }));
    else this.complain(say.videoNotKept(name));
  }

  /** The choices that a reload must keep. */
  get kept() {
    const { chosen } = this;
    return chosen && { kind: chosen.kind, name: chosen.name, deviceId: chosen.deviceId, key: chosen.key };
  }

  /**
   * Show why the driver cannot be opened; null hides that.
   * @param {string | null} sentence
   * @param {string} [cause] the browser's error name
   */
  complain(sentence, cause = "") {
    this.#cause = sentence === null ? "" : cause;
    complain(this.problem, sentence);
  }

  /** Release the camera until the next start. */
  release() {
    this.chosen?.release();
    this.show();
  }

  /** Say which one is chosen, and whether it is off. */
  show() {
    const { chosen } = this;
    for (const [kind, button] of Object.entries(this.buttons)) {
      button.setAttribute("aria-pressed", String(chosen?.kind === kind));
    }
    const off = chosen?.kind === "camera" && chosen.stream === null;
    byId("driver-name").textContent = off ? say.cameraOff : chosen?.kind === "file" ? chosen.name : "";
  }

  /**
   * @param {"camera" | "file" | "sample"} kind
   * @param {() => Promise<Driver>} make
   */
  async #choose(kind, make) {
    const turn = ++this.#turn;
    this.complain(null);
    this.buttons[kind].toggleAttribute("data-busy", true);
    try {
      const driver = await make();
      await driver.open();
      if (turn === this.#turn) await this.#use(driver);
      else driver.stop();
    } catch (error) {
      if (!(error instanceof DriverError)) throw error;
      if (turn === this.#turn) this.complain(error.message, error.cause);
    } finally {
      this.buttons[kind].removeAttribute("data-busy");
    }
  }

  /** @param {Driver} driver */
  async #use(driver) {
    const before = this.chosen;
    this.chosen = driver;
    if (driver.kind === "file" && driver.file) driver.key ??= keepFile(driver.file);
    if (before?.key && before.key !== driver.key) forgetFile(before.key);
    driver.onEnded = () => this.#gone(driver);
    this.show();
    this.onChoose(driver);
    before?.stop();
    await this.#listCameras();
  }

  /** @param {Driver} driver */
  #gone(driver) {
    if (this.chosen !== driver) return;
    this.chosen = null;
    this.show();
    this.complain(say.cameraStopped);
    this.onChoose(null);
  }

  async #listCameras() {
    const found = this.chosen?.kind === "camera" ? await cameras() : [];
    byId("camera-row").hidden = found.length < 2;
    this.devices.replaceChildren(...found.map(({ id, name }) => make("option", { value: id }, name)));
    if (this.chosen?.deviceId) this.devices.value = this.chosen.deviceId;
  }

  /** Hide the camera's error as soon as the camera is allowed, or one is connected. */
  #watchCameras() {
    const forget = (/** @type {string[]} */ ...causes) => causes.includes(this.#cause) && this.complain(null);
    navigator.mediaDevices?.addEventListener("devicechange", () => {
      void this.#listCameras();
      forget("NotFoundError", "OverconstrainedError", "NotReadableError");
    });
    const asked = navigator.permissions?.query({ name: /** @type {PermissionName} */ ("camera") });
    asked?.then(
      (permission) => (permission.onchange = () => permission.state !== "denied" && forget("NotAllowedError")),
      () => {}, // Firefox does not know this permission
    );
  }
}

async function sample() {
  const answer = await fetch(SAMPLE).catch(() => null);
  if (!answer?.ok) throw new DriverError(say.unreachable);
  const clip = await answer.blob();
  return new Clip(clip, text.sampleClip, "sample");
}

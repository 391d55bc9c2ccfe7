/** @file Choosing the portrait: the sample, a file, a drop, a paste, or a picture by the camera. */

import { byId, complain, make } from "./dom.js";
import { PictureError, readPortrait } from "./portraits.js";
import { takePicture } from "./camera-shot.js";
import { DriverError } from "./drivers.js";
import { say, text } from "./strings.js";

const SAMPLE = "/assets/samples/portrait.jpg";

/** @typedef {import("./portraits.js").Portrait} Portrait */

/** Shows the portraits of this visit. Calls `onChoose` with one that has just been chosen. */
export class PortraitPicker {
  /** @type {Portrait | null} */ chosen = null;
  /** @type {Portrait | null} */ #sample = null;
  /** @type {Map<Portrait, HTMLButtonElement>} */ #tiles = new Map();

  /** @param {(portrait: Portrait) => void} onChoose */
  constructor(onChoose) {
    this.onChoose = onChoose;
    this.list = byId("portraits");
    this.problem = byId("portrait-problem");
    const sample = /** @type {HTMLButtonElement} */ (byId("sample-portrait"));
    sample.onclick = () => this.#offer(() => this.#readSample(sample));
    const input = /** @type {HTMLInputElement} */ (byId("portrait-file"));
    byId("upload").onclick = () => input.click();
    byId("invite-upload").onclick = () => input.click();
    input.onchange = () => {
      const file = input.files?.[0];
      input.value = "";
      if (file) this.#offer(() => readPortrait(file, file.name));
    };
    byId("take-picture").onclick = () => this.#offer(takePicture);
    this.#takeDrops();
    this.#takePastes();
  }

  /**
   * Say what is wrong with the chosen portrait; null takes that back.
   * @param {string | null} sentence
   * @param {{label: string, act: () => void}} [remedy]
   */
  complain(sentence, remedy) {
    complain(this.problem, sentence, remedy);
  }

  /**
   * Choose one without telling `onChoose`; null for none.
   * @param {Portrait | null} portrait
   */
  mark(portrait) {
    this.chosen = portrait;
    for (const [one, tile] of this.#tiles) tile.setAttribute("aria-pressed", String(one === portrait));
  }

  /**
   * Show that one is on its way to the server.
   * @param {Portrait} portrait
   * @param {boolean} busy
   */
  setBusy(portrait, busy) {
    this.#tiles.get(portrait)?.toggleAttribute("data-busy", busy);
  }

  /** @param {() => Promise<Portrait | null>} read */
  async #offer(read) {
    this.complain(null);
    try {
      const portrait = await read();
      if (portrait === null) return;
      if (!this.#tiles.has(portrait)) this.#add(portrait);
      this.mark(portrait);
      this.onChoose(portrait);
    } catch (error) {
      if (!(error instanceof PictureError || error instanceof DriverError)) throw error;
      this.complain(error.message);
    }
  }

  /** @param {Portrait} portrait */
  #add(portrait) {
    const picture = make("img", { src: portrait.url, alt: "" });
    portrait.onShown = () => picture.setAttribute("src", portrait.url);
    const tile = make(
      "button",
      { type: "button", class: "tile", "aria-pressed": "false", onclick: () => this.#offer(async () => portrait) },
      picture,
      make("span", { class: "unseen" }, portrait.name),
    );
    tile.title = portrait.name;
    this.#tiles.set(portrait, tile);
    this.list.append(make("li", {}, tile));
  }

  /** @param {HTMLButtonElement} tile */
  async #readSample(tile) {
    if (this.#sample === null) {
      const file = await (await fetch(SAMPLE)).blob();
      this.#sample = await readPortrait(file, text.samplePortrait);
      this.#tiles.set(this.#sample, tile);
    }
    return this.#sample;
  }

  #takeDrops() {
    const veil = byId("drop-veil");
    const hasFile = (/** @type {DragEvent} */ event) => event.dataTransfer?.types.includes("Files") ?? false;
    document.addEventListener("dragenter", (event) => void (veil.hidden = !hasFile(event)));
    document.addEventListener("dragleave", (event) => {
      if (event.relatedTarget === null) veil.hidden = true;
    });
    document.addEventListener("dragover", (event) => event.preventDefault());
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      veil.hidden = true;
      const file = event.dataTransfer?.files[0];
      if (file) this.#offer(() => readPortrait(file, file.name));
    });
  }

  #takePastes() {
    document.addEventListener("paste", (event) => {
      const into = event.target;
      if (into instanceof HTMLInputElement && into.type !== "radio") return;
      const file = event.clipboardData?.files[0];
      if (file) this.#offer(() => readPortrait(file, say.pastedName));
      else this.complain(say.noPicturePasted);
    });
  }
}

/** @file Choosing the portrait: the sample, a file, a drop, a paste, or a picture by the camera. */

import { takePicture } from "./camera-shot.js";
import { byId, complain, icon, make } from "./dom.js";
import { DriverError } from "./drivers.js";
import { PictureError, readPortrait } from "./portraits.js";
import { forgetFile, keepFile, keptFile } from "./storage.js";
import { say, text } from "./strings.js";

const SAMPLE = "/assets/samples/portrait.jpg";
const SAMPLE_KEY = "sample";

/** @typedef {import("./portraits.js").Portrait} Portrait */

/** Shows the portraits of this visit. Calls `onChoose` with one that has just been chosen, null when it is removed. */
export class PortraitPicker {
  /** @type {Portrait | null} */ chosen = null;
  /** @type {Portrait | null} */ #sample = null;
  /** @type {Map<Portrait, HTMLButtonElement>} */ #tiles = new Map();

  /** @param {(portrait: Portrait | null) => void} onChoose */
  constructor(onChoose) {
    this.onChoose = onChoose;
    this.list = byId("portraits");
    this.problem = byId("portrait-problem");
    this.sampleTile = /** @type {HTMLButtonElement} */ (byId("sample-portrait"));
    this.sampleTile.onclick = () => this.#offer(() => this.#readSample());
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
   * Show what is wrong with the chosen portrait; null hides that.
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

  /**
   * Show whether the server has refused one.
   * @param {Portrait} portrait
   * @param {boolean} refused
   */
  setRefused(portrait, refused) {
    this.#tiles.get(portrait)?.toggleAttribute("data-refused", refused);
  }

  /** The choices that a reload must keep. */
  get kept() {
    const own = [...this.#tiles.keys()].filter((portrait) => portrait !== this.#sample);
    return {
      portraits: own.map(({ name, key, lenient, face, referenceId }) => ({ name, key: key ?? "", lenient, face, referenceId })),
      portrait: this.chosen === this.#sample && this.chosen ? SAMPLE_KEY : (this.chosen?.key ?? null),
      sampleId: this.#sample?.referenceId ?? null,
    };
  }

  /**
   * Show what was there before the page was loaded again, and choose as then.
   * @param {import("./storage.js").Choices} kept
   */
  async restore(kept) {
    for (const { name, key, lenient, face, referenceId } of kept.portraits) {
      const picture = await keptFile(key);
      const portrait = picture && (await readPortrait(picture, name).catch(() => null));
      if (portrait === null) continue;
      // One that this browser cannot show is sent again, since the server's picture of it comes with that.
      Object.assign(portrait, { key, lenient, face: face ?? {}, referenceId: portrait.shown ? referenceId : null });
      this.#add(portrait);
      if (key === kept.portrait) await this.#offer(async () => portrait);
    }
    if (kept.portrait !== SAMPLE_KEY) return;
    await this.#offer(async () => Object.assign(await this.#readSample(), { referenceId: kept.sampleId }));
  }

  /** @param {() => Promise<Portrait | null>} read */
  async #offer(read) {
    this.complain(null);
    try {
      const portrait = await read();
      if (portrait === null) return;
      if (!this.#tiles.has(portrait)) this.#add(portrait);
      portrait.key ??= portrait === this.#sample ? SAMPLE_KEY : keepFile(portrait.picture);
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
    const label = say.remove(portrait.name);
    const remove = make("button", { type: "button", class: "remove", title: label, "aria-label": label }, icon("cross"));
    const item = make("li", {}, tile, remove);
    remove.onclick = () => {
      item.remove();
      this.#forget(portrait);
      this.sampleTile.focus();
    };
    this.#tiles.set(portrait, tile);
    this.list.append(item);
  }

  /** @param {Portrait} portrait */
  #forget(portrait) {
    const last = this.chosen === portrait || this.chosen === null; // one that was refused is not chosen, but shown
    this.#tiles.delete(portrait);
    if (portrait.key) forgetFile(portrait.key);
    this.complain(null); // it was about that one, or about another's being refused
    if (last) {
      this.mark(null);
      this.onChoose(null);
    }
    URL.revokeObjectURL(portrait.url);
  }

  async #readSample() {
    if (this.#sample === null) {
      const answer = await fetch(SAMPLE).catch(() => null);
      if (!answer?.ok) throw new PictureError(say.unreachable);
      this.#sample = await readPortrait(await answer.blob(), text.samplePortrait);
      this.#tiles.set(this.#sample, this.sampleTile);
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

/** @file Named sets of run parameters, as buttons above the sliders. */

import { byId, make } from "./dom.js";
import { text } from "./strings.js";

/** @typedef {{name: string, description: string, values: Record<string, unknown>}} Preset */

/** The row of presets. Calls `onChoose` with the values of one. */
export class Presets {
  /** @type {[Preset, HTMLButtonElement][]} */ #buttons = [];

  /** @param {(values: Record<string, unknown>) => void} onChoose */
  constructor(onChoose) {
    this.onChoose = onChoose;
    this.row = byId("presets");
  }

  /**
   * Show the presets of a pipeline.
   * @param {Preset[]} presets
   */
  use(presets) {
    this.#buttons = presets.map((preset) => {
      const button = make("button", { type: "button", class: "small", title: preset.description });
      const words = /** @type {Record<string, string>} */ (text.presetNames);
      button.textContent = words[preset.name] ?? preset.name;
      button.onclick = () => this.onChoose(preset.values);
      return [preset, button];
    });
    this.row.replaceChildren(...this.#buttons.map(([, button]) => button));
    this.row.hidden = presets.length === 0;
  }

  /**
   * Show which preset the current values are.
   * @param {Record<string, unknown>} values
   */
  mark(values) {
    for (const [preset, button] of this.#buttons) {
      const same = Object.entries(preset.values).every(([name, value]) => values[name] === value);
      button.setAttribute("aria-pressed", String(same));
    }
  }
}

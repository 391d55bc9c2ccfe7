/** @file How motion is transferred: sliders made from the pipeline's schema, which apply at once. */

import { byId } from "./dom.js";
import { Presets } from "./presets.js";
import { SchemaForm } from "./schema-form.js";

const SEND_EVERY_MS = 100;

/** The section of the run parameters. Calls `onChange(changed, all that differ from their defaults)`. */
export class Motion {
  /** @type {SchemaForm | null} */ #form = null;
  /** @type {Record<string, unknown>} */ #changed = {};
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer;

  /** @param {(changed: Record<string, unknown>, all: Record<string, unknown>) => void} onChange */
  constructor(onChange) {
    this.onChange = onChange;
    this.presets = new Presets((values) => this.#apply(values));
    byId("defaults").onclick = () => this.backToDefaults();
  }

  /**
   * Show the parameters of a pipeline, as they are by default.
   * @param {Record<string, any>} schema
   * @param {import("./presets.js").Preset[]} [presets]
   */
  use(schema, presets = []) {
    const form = new SchemaForm(schema, (name, value) => this.#note({ [name]: value }));
    this.#form = form;
    this.presets.use(presets);
    this.presets.mark(form.values);
    byId("motion-fields").replaceChildren(...form.elements(form.names));
    byId("motion").hidden = form.names.length === 0;
  }

  /** All values that differ from their defaults. */
  get values() {
    return this.#form?.changed() ?? {};
  }

  /**
   * Show these values, as if a person had set them one by one.
   * @param {Record<string, unknown>} given
   */
  restore(given) {
    const known = this.#form?.names ?? [];
    this.#form?.show(Object.fromEntries(Object.entries(given).filter(([name]) => known.includes(name))));
    this.presets.mark(this.#form?.values ?? {});
  }

  /**
   * Set these values and show them.
   * @param {Record<string, unknown>} given
   */
  #apply(given) {
    if (!this.#form) return;
    this.#form.show({ ...this.#form.values, ...given });
    this.#note(given);
  }

  /** Show the defaults, as if a person had set them one by one. */
  backToDefaults() {
    const form = this.#form;
    if (form) this.#apply(Object.fromEntries(Object.keys(form.changed()).map((name) => [name, form.defaults[name]])));
  }

  /**
   * A dragged slider reports many values; the latest is sent ten times a second.
   * @param {Record<string, unknown>} changed
   */
  #note(changed) {
    Object.assign(this.#changed, changed);
    this.presets.mark(this.#form?.values ?? {});
    this.#timer ??= setTimeout(() => {
      const sent = this.#changed;
      this.#changed = {};
      this.#timer = undefined;
      this.onChange(sent, this.values);
    }, SEND_EVERY_MS);
  }
}

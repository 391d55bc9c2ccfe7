/** @file The parts of the delay, side by side and in words, with advice about the largest. */

import { byId, make } from "./dom.js";
import { say, text } from "./strings.js";

/** In the order in which a frame goes through them; the last one is added by this browser. */
const NAMES = /** @type {const} */ (["chunk", "window", "step", "send", "network"]);
/** How much larger another part must be before the advice changes, so that it does not flicker. */
const CLEARLY = 1.2;

/** @typedef {typeof NAMES[number]} Name */
/** @typedef {Record<Exclude<Name, "network">, number | null>} Told in milliseconds, as the server says them */
/** @typedef {Pick<import("./pipelines.js").PipelineSchema, "load_parameters">} Pipeline */

/** Shows the parts. */
export class DelayParts {
  /** @type {Pipeline | null} */ #pipeline = null;
  /** @type {Name | null} */ #largest = null;
  /** Driving frames that a step waits for; null where the server has not said. @type {number | null} */
  #chunkFrames = null;

  constructor() {
    this.bar = byId("delay-bar");
    this.list = byId("delay-list");
    this.advice = byId("delay-advice");
  }

  /**
   * The pipeline whose delay is shown from now on.
   * @param {Pipeline} pipeline
   */
  use(pipeline) {
    this.#pipeline = pipeline;
    this.clear();
  }

  /** Forget all parts. */
  clear() {
    this.#largest = this.#chunkFrames = null;
    this.#draw(new Map(NAMES.filter((name) => name !== "window").map((name) => [name, null])));
    this.advice.textContent = "";
  }

  /**
   * @param {Told | undefined} told undefined from a server that is older than this page
   * @param {number} onTheWay seconds on the network and in this browser
   * @param {number} rate driving frames per second
   * @param {number} [chunkFrames] driving frames that a step waits for
   */
  show(told, onTheWay, rate, chunkFrames) {
    this.#chunkFrames = chunkFrames ?? null;
    if (!told || Object.values(told).every((part) => part === null)) return this.clear();
    /** @type {Map<Name, number | null>} */
    const parts = new Map();
    for (const name of NAMES) {
      const part = name === "network" ? 1000 * onTheWay : told[name];
      // Most pipelines have no window, and a part that is always zero says nothing.
      if (name !== "window" || part) parts.set(name, part === null ? null : part / 1000);
    }
    this.#draw(parts);
    this.#largest = largest(parts, this.#largest);
    this.advice.textContent = this.#advise(this.#largest, parts.get(this.#largest) ?? 0, rate);
  }

  /** @param {Map<Name, number | null>} parts in seconds */
  #draw(parts) {
    const known = [...parts].filter(([, part]) => part !== null && part > 0);
    this.bar.replaceChildren(
      ...known.map(([name, part]) => {
        const piece = make("span", { "data-part": name });
        piece.style.flexGrow = String(1000 * (part ?? 0)); // the sum must not be below 1, or the bar is not filled
        return piece;
      }),
    );
    this.list.replaceChildren(
      ...[...parts].map(([name, part]) =>
        make("div", { "data-part": name }, make("dt", {}, this.#called(name)), make("dd", {}, measured(part))),
      ),
    );
  }

  /** @param {Name} name */
  #called(name) {
    if (name === "chunk") return say.partChunk(this.#chunkFrames);
    return { window: text.partWindow, step: text.partStep, send: text.partSend, network: text.partNetwork }[name];
  }

  /**
   * @param {Name} name
   * @param {number} seconds
   * @param {number} rate
   */
  #advise(name, seconds, rate) {
    const frames = this.#chunkFrames ?? 1;
    const properties = this.#pipeline?.load_parameters.properties ?? {};
    // A chunk is complete after that; frames that wait longer wait for the pipeline.
    if (name === "chunk") return seconds > frames / Math.max(rate, 1) ? text.adviseTurn : say.adviseChunk(frames);
    if (name === "window") return "latency" in properties ? say.adviseLatency() : text.adviseWindow;
    if (name === "step") return "width" in properties ? say.adviseSmaller() : text.adviseStep;
    return { send: text.adviseSend, network: text.adviseNetwork }[name];
  }
}

/**
 * @param {Map<Name, number | null>} parts
 * @param {Name | null} before what it was a second ago
 * @returns {Name}
 */
function largest(parts, before) {
  const size = (/** @type {Name} */ name) => parts.get(name) ?? 0;
  const now = [...parts.keys()].reduce((most, name) => (size(name) > size(most) ? name : most));
  return before !== null && size(now) < CLEARLY * size(before) ? before : now;
}

/** @param {number | null} seconds */
function measured(seconds) {
  return seconds === null ? text.nothing : `${say.seconds(seconds)} ${say.secondsUnit}`;
}

/** @file The strip of figures about a running session. */

import { DelayParts } from "./delay-parts.js";
import { byId, make } from "./dom.js";
import { say, text } from "./strings.js";

/**
 * The figures that the server sends once a second.
 * @typedef {object} Stats
 * @property {number} fps_in
 * @property {number} fps_out
 * @property {{p50: number | null, p95: number | null}} latency_ms
 * @property {import("./delay-parts.js").Told} [delay_ms] what it consists of
 * @property {number} [chunk_frames] driving frames that a step waits for
 * @property {number} frames_in
 * @property {number} dropped_in
 * @property {number} dropped_out
 * @property {number} frames_without_face
 */

/** The share of skipped frames is a warning from the first of these on, until it is below the second. */
const [MANY, FEW] = [0.1, 0.05];
/** Seconds over which it is measured, since a single second varies too much. */
const REMEMBERED = 5;

/** @typedef {"yes" | "no" | "unknown"} Seen whether the driver's face is found */

/** Shows the figures, and derives from them what a single message does not contain. */
export class Figures {
  /** The last seconds, oldest first. @type {Stats[]} */ #seen = [];
  #parts = new DelayParts();

  constructor() {
    this.advice = byId("skipped-advice");
  }

  /**
   * The pipeline whose sessions are shown from now on.
   * @param {import("./pipelines.js").PipelineSchema} pipeline
   */
  use(pipeline) {
    this.#parts.use(pipeline);
  }

  /** Forget all figures. */
  clear() {
    this.#seen = [];
    this.#warn(null);
    for (const id of ["in", "out", "delay", "dropped", "face"]) show(id, text.nothing, "");
    this.#parts.clear();
  }

  /**
   * @param {Stats} stats
   * @param {number} onTheWay seconds on the network and in this browser, to be added to the server's delay
   * @param {string} state the session's state that the server sent last
   * @returns {Seen}
   */
  show(stats, onTheWay, state) {
    const last = this.#seen.at(-1) ?? null;
    this.#seen = [...this.#seen.slice(-REMEMBERED), stats];
    const { p50 } = stats.latency_ms;
    show("in", say.perSecond(stats.fps_in), say.perSecondUnit);
    show("out", say.perSecond(stats.fps_out), say.perSecondUnit);
    if (p50 === null) show("delay", text.nothing, "");
    else show("delay", say.seconds(p50 / 1000 + onTheWay), say.secondsUnit);
    this.#parts.show(stats.delay_ms, onTheWay, stats.fps_in, stats.chunk_frames);
    if (last) this.#showSkipped(skipped(stats, this.#seen[0]));
    const seen = faceSeen(stats, last, state);
    show("face", { yes: say.inView, no: say.notInView, unknown: text.nothing }[seen], "");
    byId("figure-face").dataset.seen = seen;
    return seen;
  }

  /** @param {number} share of the last seconds' driving frames */
  #showSkipped(share) {
    show("dropped", say.percent(share), say.percentUnit);
    const warned = this.advice.textContent !== "";
    this.#warn(share >= (warned ? FEW : MANY) ? share : null);
  }

  /** @param {number | null} share null takes the warning back */
  #warn(share) {
    byId("figure-dropped").toggleAttribute("data-warned", share !== null);
    // Read out when it appears, not each second.
    if ((share === null) === (this.advice.textContent === "")) return;
    this.advice.textContent = share === null ? "" : say.adviseSkipped();
  }
}

/**
 * The share of the driving frames since then that is not seen in the result.
 * @param {Stats} now
 * @param {Stats} before
 */
function skipped(now, before) {
  const lost = now.dropped_in + now.dropped_out - before.dropped_in - before.dropped_out;
  return Math.min(lost / Math.max(now.frames_in - before.frames_in, 1), 1);
}

/**
 * @param {Stats} now
 * @param {Stats | null} before
 * @param {string} state
 * @returns {Seen}
 */
function faceSeen(now, before, state) {
  if (state === "waiting_for_face") return now.frames_without_face > 0 ? "no" : "unknown";
  if (!before || now.frames_in === before.frames_in) return "unknown";
  return now.frames_without_face > before.frames_without_face ? "no" : "yes";
}

/**
 * @param {string} id
 * @param {string} value
 * @param {string} unit
 */
function show(id, value, unit) {
  const place = byId(`figure-${id}`);
  place.replaceChildren(value);
  if (unit) place.append(" ", make("small", {}, unit));
}

/** @file The choice of the pipeline: which exist, what they need, and their load parameters. */

import { ApiError } from "./api.js";
import { byId, complain, make } from "./dom.js";
import { WeightsOffer } from "./weights-offer.js";
import { SchemaForm } from "./schema-form.js";
import { pipelineName, say, text } from "./strings.js";

const FIRST = ["latency", "seed", "width", "height"];
const HIDDEN = ["weights"];
const DIFFUSION = "personalive";
const PREVIEW = "preview";
const LOOK_AGAIN_MS = 3000;

/**
 * @typedef {object} PipelineSchema
 * @property {string} id
 * @property {string} name
 * @property {string} description
 * @property {boolean} ready
 * @property {string} reason
 * @property {string | null} remedy
 * @property {boolean} generative
 * @property {number} chunk_frames
 * @property {Record<string, any>} load_parameters
 * @property {Record<string, any>} run_parameters
 */

/** The section of the pipelines. Calls `onChoose` with the chosen one's schema. */
export class Pipelines {
  /** @type {PipelineSchema | null} */ chosen = null;
  /** @type {Record<string, PipelineSchema>} */ #known = {};
  /** @type {Record<string, unknown>} */ #loaded = {};
  /** @type {string | null} */ #loadedId = null;
  /** @type {SchemaForm | null} */ #form = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #again;

  /**
   * @param {import("./api.js").Api} api
   * @param {(pipeline: PipelineSchema) => void} onChoose
   */
  constructor(api, onChoose) {
    this.api = api;
    this.onChoose = onChoose;
    this.list = byId("pipelines");
    for (const id of ["before", "load-more"]) {
      const more = /** @type {HTMLDetailsElement} */ (byId(id));
      more.ontoggle = () => more.open && more.scrollIntoView({ block: tall(more) ? "start" : "nearest" });
    }
    this.problem = byId("pipeline-problem");
  }

  /**
   * Get the pipelines from the server, and choose one. Errors are shown in place until the server answers.
   * @param {string | null} [preferred] the pipeline to choose if that can be
   */
  async look(preferred = null) {
    clearTimeout(this.#again);
    try {
      const status = await this.api.get("/api/v1/pipeline/status");
      const { pipelines } = await this.api.get("/api/v1/pipelines/schemas");
      this.#known = pipelines;
      this.note(status);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      complain(this.problem, error.message, { label: text.tryAgain, act: () => void this.look(preferred) });
      if (error.passing) this.#again = setTimeout(() => void this.look(preferred), LOOK_AGAIN_MS);
      return;
    }
    complain(this.problem, null);
    this.#list();
    const first = [preferred, this.chosen?.id, this.#loadedId, DIFFUSION, PREVIEW, ...Object.keys(this.#known)];
    const best = first.find((id) => id && (this.#known[id]?.ready || id === this.#loadedId));
    if (best) this.choose(best);
  }

  /** Whether the server has the chosen one loaded: pictures can be checked at once then. */
  get isLoaded() {
    return this.chosen !== null && this.chosen.id === this.#loadedId;
  }

  /** What to load: only what has been changed is asked for. */
  get wanted() {
    const chosen = /** @type {PipelineSchema} */ (this.chosen);
    const from = this.isLoaded ? this.#loaded : undefined;
    return { id: chosen.id, name: pipelineName(chosen), params: this.#form?.changed(from) ?? {} };
  }

  /** The chosen one's load parameters that differ from their defaults. */
  get changed() {
    return this.#form?.changed() ?? {};
  }

  /**
   * Show these load parameters, as if a person had set them one by one.
   * @param {Record<string, unknown>} given
   */
  restore(given) {
    const known = this.#form?.names ?? [];
    const values = Object.entries(given).filter(([name]) => known.includes(name));
    this.#form?.show(Object.fromEntries(values));
  }

  /**
   * Remember what the server has loaded.
   * @param {import("./loading.js").Status} status
   */
  note(status) {
    this.#loadedId = status.status === "loaded" ? status.pipeline_id : null;
    this.#loaded = this.#loadedId === null ? {} : (status.load_params ?? {});
  }

  /** @param {string} id */
  choose(id) {
    this.chosen = this.#known[id];
    for (const input of this.list.querySelectorAll("input")) input.checked = input.value === id;
    this.#form = new SchemaForm(this.chosen.load_parameters, () => {});
    if (this.isLoaded) this.#form.show(this.#loaded);
    const rest = this.#form.names.filter((name) => !FIRST.includes(name) && !HIDDEN.includes(name));
    byId("load-first").replaceChildren(...this.#form.elements(FIRST));
    byId("load-rest").replaceChildren(...this.#form.elements(rest));
    byId("load-more").hidden = rest.length === 0;
    byId("before").hidden = false;
    this.onChoose(this.chosen);
  }

  #list() {
    const ordered = Object.values(this.#known).sort((a, b) => Number(b.generative) - Number(a.generative));
    this.list.replaceChildren(...ordered.map((pipeline) => this.#row(pipeline)));
  }

  /** @param {PipelineSchema} pipeline */
  #row(pipeline) {
    const usable = pipeline.ready || pipeline.id === this.#loadedId;
    const input = make("input", { type: "radio", name: "pipeline", value: pipeline.id, disabled: !usable });
    input.onchange = () => this.choose(pipeline.id);
    const label = make("label", {}, input, make("span", { class: "name" }, pipelineName(pipeline)));
    const about = make("p", { class: "about", id: `about-${pipeline.id}` }, described(pipeline));
    input.setAttribute("aria-describedby", about.id);
    const row = make("div", { class: "pipeline" }, label, about);
    if (!usable) row.append(new WeightsOffer(this.api, pipeline, () => void this.look()).element);
    return row;
  }
}

/**
 * Returns whether there is more than can be seen at once.
 * @param {HTMLElement} element
 */
function tall(element) {
  return element.offsetHeight > Math.min(byId("sections").clientHeight, innerHeight);
}

/** @param {PipelineSchema} pipeline */
function described(pipeline) {
  if (pipeline.id === PREVIEW) return say.previewNote;
  return pipeline.id === DIFFUSION ? say.diffusionNote : pipeline.description;
}

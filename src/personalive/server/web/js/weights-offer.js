/** @file What a pipeline lacks, and fetching its weights with progress. */

import { ApiError } from "./api.js";
import { complain, make } from "./dom.js";
import { say, text } from "./strings.js";
import { sleep } from "./time.js";

const LOOK_AGAIN_MS = 1000;

/**
 * @typedef {object} Weights what GET /api/v1/models/status answers
 * @property {boolean} downloaded
 * @property {string[]} missing
 * @property {{percentage: number, current_file: string, bytes_done: number, bytes_total: number} | null} progress
 * @property {string | null} error
 */

/** A row that offers the download, and shows it. */
export class WeightsOffer {
  /**
   * @param {import("./api.js").Api} api
   * @param {import("./pipelines.js").PipelineSchema} pipeline one that is not ready
   * @param {() => void} onReady called when the weights are there
   */
  constructor(api, pipeline, onReady) {
    this.api = api;
    this.pipeline = pipeline;
    this.onReady = onReady;
    this.told = make("p", { class: "about", role: "status" });
    this.bar = make("progress", { max: 100, hidden: true, "aria-label": text.download });
    this.button = make("button", { type: "button", class: "small", hidden: true }, text.download);
    this.button.onclick = () => void this.#download();
    this.problem = make("p", { class: "problem", role: "alert", hidden: true });
    this.element = make("div", { class: "weights" }, this.told, this.bar, this.button, this.problem);
    void this.#begin();
  }

  async #begin() {
    if (this.pipeline.remedy === null) {
      this.told.textContent = say.notReady(this.pipeline.reason);
      return;
    }
    try {
      const weights = await this.#look();
      if (weights.progress) await this.#watch();
      else this.#offer(weights);
    } catch (error) {
      this.#complain(error);
    }
  }

  /** @returns {Promise<Weights>} */
  #look() {
    return this.api.get(`/api/v1/models/status?pipeline_id=${encodeURIComponent(this.pipeline.id)}`);
  }

  /** @param {Weights} weights */
  #offer(weights) {
    this.bar.hidden = true;
    const fetchable = weights.missing.length > 0;
    this.button.hidden = !fetchable;
    this.button.textContent = weights.error ? text.tryAgain : text.download;
    this.told.textContent = fetchable ? say.weightsMissing(say.weightsSizeUnknown) : say.notReady(this.pipeline.reason);
    complain(this.problem, weights.error && fetchable ? weights.error : null);
  }

  async #download() {
    complain(this.problem, null);
    this.button.hidden = true;
    this.told.textContent = say.downloadStarting;
    try {
      await this.api.post("/api/v1/models/download", { pipeline_id: this.pipeline.id });
      await this.#watch();
    } catch (error) {
      this.button.hidden = false;
      this.#complain(error);
    }
  }

  async #watch() {
    this.button.hidden = true;
    this.bar.hidden = false;
    for (;;) {
      const weights = await this.#look();
      if (weights.progress === null) {
        if (!weights.downloaded) return this.#offer(weights);
        this.told.textContent = say.downloadDone;
        return this.onReady();
      }
      this.#show(weights.progress);
      await sleep(LOOK_AGAIN_MS);
    }
  }

  /** @param {NonNullable<Weights["progress"]>} progress */
  #show({ percentage, current_file: file, bytes_done: done, bytes_total: total }) {
    this.told.textContent = total > 0 ? say.downloaded(done, total, file) : say.downloadStarting;
    if (total > 0) this.bar.value = percentage;
    else this.bar.removeAttribute("value");
  }

  /** @param {unknown} error */
  #complain(error) {
    if (!(error instanceof ApiError)) throw error;
    complain(this.problem, error.message);
  }
}

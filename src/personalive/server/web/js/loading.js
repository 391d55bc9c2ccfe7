/** @file Load the wanted pipeline, regardless of what the server has loaded now. */

import { ApiError } from "./api.js";
import { sleep } from "./time.js";

const LOOK_AGAIN_MS = 250;

/**
 * @typedef {object} Wanted
 * @property {string} id
 * @property {Record<string, unknown>} params load parameters that must have these values; all others may have any
 */

/**
 * @typedef {object} Status what GET /api/v1/pipeline/status answers
 * @property {"not_loaded" | "loading" | "loaded" | "error"} status
 * @property {string | null} pipeline_id
 * @property {Record<string, unknown> | null} load_params
 * @property {string | null} stage
 * @property {number | null} progress
 * @property {string | null} error
 */

/**
 * Load the pipeline unless it is loaded like that, and wait until it is. Throws `ApiError`.
 * @param {import("./api.js").Api} api
 * @param {Wanted} wanted
 * @param {(status: Status) => void} report called with each status while the pipeline is being loaded
 * @param {AbortSignal} signal
 * @returns {Promise<Status>}
 */
export async function ensureLoaded(api, wanted, report, signal) {
  let asked = false;
  let awaited = false;
  for (;;) {
    /** @type {Status} */
    const status = await api.get("/api/v1/pipeline/status", { signal });
    if (status.status === "loading") {
      awaited ||= status.pipeline_id === wanted.id;
      report(status);
      await sleep(LOOK_AGAIN_MS, signal);
    } else if (status.status === "loaded" && fits(status, wanted)) {
      return status;
    } else if (asked || (awaited && status.status === "error")) {
      throw new ApiError(status.error ?? "", 409);
    } else {
      const kept = status.status === "loaded" && status.pipeline_id === wanted.id ? status.load_params : {};
      const body = { pipeline_id: wanted.id, load_params: { ...kept, ...wanted.params } };
      await api.post("/api/v1/pipeline/load", body, { signal });
      asked = true;
    }
  }
}

/**
 * @param {Status} status
 * @param {Wanted} wanted
 */
function fits(status, wanted) {
  if (status.pipeline_id !== wanted.id) return false;
  const now = status.load_params ?? {};
  return Object.entries(wanted.params).every(([name, value]) => now[name] === value);
}

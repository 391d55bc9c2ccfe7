/**
 * @file The page's settings, kept between visits: method, parameters, mirror and comparison.
 *
 * They lie in the browser's storage for this page, as one small entry with a version: pictures, videos, names and keys
 * are not among them.
 */

const SETTINGS = "personalive-settings";
const VERSION = 1;
const MOST_CHARACTERS = 16_000;
const MOST_PIPELINES = 16;

/**
 * @typedef {object} Settings
 * @property {string | null} pipeline
 * @property {Record<string, Record<string, unknown>>} load load parameters by pipeline, where they are not the default
 * @property {Record<string, Record<string, unknown>>} run run parameters by pipeline, likewise
 * @property {Partial<Record<string, boolean>>} mirrored by the kind of driver
 * @property {string} compare
 */

/** @returns {Settings} */
export function defaultSettings() {
  return { pipeline: null, load: {}, run: {}, mirrored: {}, compare: "off" };
}

/**
 * The settings of the last visit; defaults where there are none that this page understands.
 * @returns {Settings}
 */
export function keptSettings() {
  try {
    const kept = JSON.parse(localStorage.getItem(SETTINGS) ?? "null");
    if (kept?.version !== VERSION) return defaultSettings();
    return {
      pipeline: typeof kept.pipeline === "string" ? kept.pipeline : null,
      load: records(kept.load),
      run: records(kept.run),
      mirrored: record(kept.mirrored),
      compare: typeof kept.compare === "string" ? kept.compare : "off",
    };
  } catch {
    return defaultSettings();
  }
}

/** @param {Settings} settings */
export function keepSettings(settings) {
  try {
    const written = JSON.stringify({ version: VERSION, ...settings });
    if (written.length <= MOST_CHARACTERS) localStorage.setItem(SETTINGS, written);
  } catch {
    // Storage is full or disabled: then the next visit begins with the defaults.
  }
}

export function forgetSettings() {
  try {
    localStorage.removeItem(SETTINGS);
  } catch {
    // Storage is disabled: nothing is kept.
  }
}

/**
 * @param {unknown} value
 * @returns {Record<string, any>}
 */
function record(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? { ...value } : {};
}

/** @param {unknown} value */
function records(value) {
  const entries = Object.entries(record(value)).slice(0, MOST_PIPELINES);
  return Object.fromEntries(entries.map(([name, values]) => [name, record(values)]));
}

/**
 * @file What a reload must not lose: the choices of this tab, and the files among them.
 *
 * Choices lie in the tab's own storage, which ends with it. Files are too large for that: they lie in the browser's
 * database, by random names that only the tab's choices hold, and for a day at most.
 */

const CHOICES = "personalive-choices";
const DATABASE = "personalive";
const FILES = "files";
const LONGEST_MS = 24 * 60 * 60 * 1000;
const MOST_BYTES = 300_000_000;

/** @typedef {{name: string, key: string, lenient: boolean, face?: Record<string, string>, referenceId: string | null}} KeptPortrait */

/**
 * @typedef {object} Choices
 * @property {KeptPortrait[]} portraits
 * @property {string | null} portrait the chosen one's key; "sample" for the sample
 * @property {string | null} sampleId the sample's reference on the server
 * @property {{kind: import("./drivers.js").Kind, name: string, deviceId: string | null, key: string | null} | null} driver
 * @property {{session: string, id: string} | null} [recording] what was being recorded
 * @property {import("./transports.js").Wanted} [transport]
 * @property {string | null} pipeline
 * @property {Record<string, unknown>} load load parameters that differ from their defaults
 * @property {Record<string, unknown>} run run parameters that differ from their defaults
 */

/** @param {Choices} choices */
export function keepChoices(choices) {
  try {
    sessionStorage.setItem(CHOICES, JSON.stringify(choices));
  } catch {
    // Storage is full or disabled: then a reload starts with nothing chosen.
  }
}

/**
 * What was chosen in this tab before the page was loaded.
 * @returns {Choices | null}
 */
export function keptChoices() {
  try {
    const kept = JSON.parse(sessionStorage.getItem(CHOICES) ?? "null");
    return Array.isArray(kept?.portraits) ? kept : null;
  } catch {
    return null;
  }
}

/**
 * Keep a file, as far as the browser lets us.
 * @param {Blob} file
 * @returns {string} the key to get it by
 */
export function keepFile(file) {
  const key = [...crypto.getRandomValues(new Uint32Array(4))].map((part) => part.toString(36)).join("-");
  if (file.size <= MOST_BYTES) void use("readwrite", (files) => files.put({ file, at: Date.now() }, key)).catch(() => {});
  return key;
}

/**
 * A file that was kept, or null where it is not there any more.
 * @param {string} key
 * @returns {Promise<Blob | null>}
 */
export async function keptFile(key) {
  const found = await use("readonly", (files) => files.get(key)).catch(() => undefined);
  return found?.file instanceof Blob ? found.file : null;
}

/** @param {string} key */
export function forgetFile(key) {
  void use("readwrite", (files) => files.delete(key)).catch(() => {});
}

/** Remove files that tabs long closed have left. */
export async function sweepFiles() {
  const oldest = Date.now() - LONGEST_MS;
  await use("readwrite", (files) => {
    const request = files.openCursor();
    request.onsuccess = () => {
      const cursor = request.result;
      if (cursor === null) return;
      if (cursor.value.at < oldest) cursor.delete();
      cursor.continue();
    };
    return request;
  }).catch(() => {});
}

/** @type {Promise<IDBDatabase> | null} */
let database = null;

/**
 * Do something with the kept files. Rejects where the browser has no place for them.
 * @param {IDBTransactionMode} mode
 * @param {(files: IDBObjectStore) => IDBRequest} act
 * @returns {Promise<any>} what came of it
 */
async function use(mode, act) {
  database ??= new Promise((resolve, reject) => {
    const opening = indexedDB.open(DATABASE, 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore(FILES);
    opening.onsuccess = () => resolve(opening.result);
    opening.onerror = () => reject(opening.error);
  });
  const transaction = (await database).transaction(FILES, mode);
  const request = act(transaction.objectStore(FILES));
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve(request.result);
    transaction.onerror = transaction.onabort = () => reject(transaction.error);
  });
}

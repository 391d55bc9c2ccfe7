/** @file The server's key: kept for this tab only, asked for when the server wants it. */

import { byId } from "./dom.js";
import { text } from "./strings.js";

const KEPT_AS = "personalive-key";

/** The key in force, or null. */
export function readKey() {
  return sessionStorage.getItem(KEPT_AS);
}

/**
 * Keep a key until the tab is closed.
 * @param {string} key
 */
export function keepKey(key) {
  sessionStorage.setItem(KEPT_AS, key);
  for (const hear of watching) hear(key);
}

/** @type {((key: string | null) => void)[]} */
const watching = [];

/**
 * Call `hear` with the key in force, now and whenever another one is given.
 * @param {(key: string | null) => void} hear
 */
export function watchKey(hear) {
  watching.push(hear);
  hear(readKey());
}

/** @type {Promise<boolean> | null} */
let asking = null;

/**
 * Ask for the key, once for all who wait for it.
 * @returns {Promise<boolean>} whether one was given
 */
export function askForKey() {
  asking ??= ask().finally(() => (asking = null));
  return asking;
}

async function ask() {
  const dialog = /** @type {HTMLDialogElement} */ (byId("key-dialog"));
  const input = /** @type {HTMLInputElement} */ (byId("key-input"));
  const problem = byId("key-problem");
  problem.textContent = readKey() === null ? "" : text.keyWrong;
  input.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  const given = input.value.trim();
  if (dialog.returnValue !== "go" || given === "") return false;
  keepKey(given);
  return true;
}

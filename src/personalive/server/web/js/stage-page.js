/**
 * @file The stage view, for OBS's browser source: only the result, which reconnects automatically.
 *
 * Its address says how: ?background=transparent|%23rrggbb, ?session=ID (the newest otherwise), ?mirror=1, ?sound=1,
 * #key=KEY (behind the #, so that it is never sent as part of an address).
 */

import { Api, ApiError } from "./api.js";
import { byId, fill } from "./dom.js";
import { keepKey, readKey } from "./key.js";
import { say } from "./strings.js";
import { sleep } from "./time.js";
import { watch } from "./whep.js";

const AGAIN_MS = 2000;
/** OBS's browser sources have it: what they show goes to an audience, which is not to read how things stand. */
const onAir = "obsstudio" in window;

fill(document);
const asked = new URLSearchParams(location.search);
const [, key = ""] = /^#key=(.+)$/.exec(location.hash) ?? [];
if (key) keepKey(decoded(key));

const background = asked.get("background") ?? "transparent";
const colour = background === "transparent" ? background : `#${background.replace("#", "")}`;
if (CSS.supports("color", colour)) document.documentElement.style.setProperty("--background", colour);
document.body.toggleAttribute("data-mirrored", asked.get("mirror") === "1");
document.documentElement.toggleAttribute("data-on-air", onAir);

const video = /** @type {HTMLVideoElement} */ (byId("video"));
const api = new Api(readKey, async () => false);
video.muted = asked.get("sound") !== "1";
video.addEventListener("loadeddata", () => (video.hidden = false));

for (;;) {
  try {
    await watch(api, asked.get("session"), (stream) => {
      video.srcObject = stream;
      tell("");
    });
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    const waiting = error.status === 404 ? say.stageNoSession : say.stageWaiting;
    tell(error.status === 401 ? say.stageKey : error.status === 0 ? error.message : waiting);
  }
  video.hidden = true;
  video.srcObject = null;
  await sleep(AGAIN_MS);
}

/** @param {string} sentence */
function tell(sentence) {
  byId("told").textContent = onAir && sentence !== say.stageKey ? "" : sentence;
}

/**
 * A key as our own link carries it, or as somebody has typed it.
 * @param {string} text
 */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

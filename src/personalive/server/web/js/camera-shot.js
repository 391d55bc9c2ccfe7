/** @file A portrait taken with the camera. */

import { byId } from "./dom.js";
import { Camera } from "./drivers.js";
import { Portrait } from "./portraits.js";
import { say } from "./strings.js";

/**
 * Show the camera until a picture is taken, or not. Throws `DriverError`.
 * @returns {Promise<Portrait | null>}
 */
export async function takePicture() {
  const dialog = /** @type {HTMLDialogElement} */ (byId("shot-dialog"));
  const video = /** @type {HTMLVideoElement} */ (byId("shot-video"));
  const camera = new Camera(null);
  await camera.open();
  try {
    video.srcObject = camera.stream;
    dialog.returnValue = "";
    dialog.showModal();
    await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
    return dialog.returnValue === "take" && video.videoWidth > 0 ? await shot(video) : null;
  } finally {
    video.srcObject = null;
    camera.stop();
  }
}

/** @param {HTMLVideoElement} video */
async function shot(video) {
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  canvas.getContext("2d")?.drawImage(video, 0, 0);
  return new Portrait(say.shotName, await canvas.convertToBlob({ type: "image/jpeg", quality: 0.95 }));
}

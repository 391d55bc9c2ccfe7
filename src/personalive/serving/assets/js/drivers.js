/** @file What drives the portrait: a camera, or a video that is played as if it were one. */

import { say, text } from "./strings.js";

/** A driver that cannot be had, in a sentence. */
export class DriverError extends Error {}

/**
 * A picture that moves. `stop` gives back what it holds.
 * @typedef {object} Driver
 * @property {"camera" | "file" | "sample"} kind
 * @property {string} name
 * @property {MediaStream} stream
 * @property {string | null} deviceId
 * @property {(paused: boolean) => void} pause
 * @property {() => void} stop
 */

/**
 * Open a camera. Throws `DriverError`.
 * @param {string | null} deviceId any if null
 * @returns {Promise<Driver>}
 */
export async function openCamera(deviceId) {
  if (!navigator.mediaDevices) throw new DriverError(say.cameraInsecure);
  const wish = { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 } };
  const device = deviceId === null ? { facingMode: "user" } : { deviceId: { exact: deviceId } };
  const stream = await navigator.mediaDevices
    .getUserMedia({ video: { ...wish, ...device } })
    .catch((error) => {
      throw new DriverError(whyNoCamera(error));
    });
  const [track] = stream.getVideoTracks();
  track.contentHint = "motion";
  return {
    kind: "camera",
    name: text.camera,
    stream,
    deviceId: track.getSettings().deviceId ?? null,
    pause: () => {},
    stop: () => track.stop(),
  };
}

/** @param {DOMException} error */
function whyNoCamera(error) {
  switch (error.name) {
    case "NotAllowedError":
    case "SecurityError":
      return say.cameraBlocked;
    case "NotFoundError":
    case "OverconstrainedError":
      return say.noCamera;
    case "NotReadableError":
    case "AbortError":
      return say.cameraTaken;
    default:
      return say.cameraFailed(error.message);
  }
}

/** The cameras there are; without names until one has been allowed. */
export async function cameras() {
  const devices = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
  return devices
    .filter((device) => device.kind === "videoinput" && device.deviceId !== "")
    .map((device, index) => ({ id: device.deviceId, name: device.label || say.unnamedCamera(index + 1) }));
}

/**
 * Play a video over and over. Throws `DriverError` where the browser cannot.
 * @param {Blob} file
 * @param {string} name
 * @param {"file" | "sample"} kind
 * @returns {Promise<Driver>}
 */
export async function playVideo(file, name, kind) {
  const url = URL.createObjectURL(file);
  const player = document.createElement("video");
  Object.assign(player, { muted: true, loop: true, playsInline: true, src: url });
  try {
    await player.play();
    if (player.videoWidth === 0) throw new Error("no picture");
  } catch {
    URL.revokeObjectURL(url);
    throw new DriverError(say.notAVideo(name));
  }
  const stream = captured(player);
  for (const track of stream.getVideoTracks()) track.contentHint = "motion";
  return {
    kind,
    name,
    stream,
    deviceId: null,
    pause: (paused) => void (paused ? player.pause() : player.play()),
    stop: () => {
      for (const track of stream.getTracks()) track.stop();
      player.pause();
      player.removeAttribute("src");
      URL.revokeObjectURL(url);
    },
  };
}

/**
 * Safari has no `captureStream` of a video; a canvas there does instead.
 * @param {HTMLVideoElement} player
 * @returns {MediaStream}
 */
function captured(player) {
  const own = Reflect.get(player, "captureStream") ?? Reflect.get(player, "mozCaptureStream");
  if (own) {
    const stream = own.call(player);
    for (const track of stream.getAudioTracks()) stream.removeTrack(track);
    return stream;
  }
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d");
  if (!context || !canvas.captureStream || !player.requestVideoFrameCallback) throw new DriverError(say.noCapture);
  canvas.width = player.videoWidth;
  canvas.height = player.videoHeight;
  const draw = () => {
    context.drawImage(player, 0, 0);
    player.requestVideoFrameCallback(draw);
  };
  draw();
  return canvas.captureStream();
}

/** @file The video codecs that this browser has for a WebSocket, by WebCodecs. */

/** By the server's names. Constrained baseline at level 3.1 is decoded everywhere. */
export const CODEC_STRINGS = /** @type {const} */ ({ H264: "avc1.42E01F", VP8: "vp8" });

/** @typedef {keyof typeof CODEC_STRINGS} CodecName */

/** Whether this browser encodes and decodes at all: pages that are not opened by https or on this machine may not. */
export function hasWebCodecs() {
  return typeof VideoEncoder === "function" && typeof VideoDecoder === "function";
}

/**
 * The encoder's settings.
 * @param {CodecName} codec
 * @param {number} width
 * @param {number} height
 * @param {number} bitrate
 * @returns {VideoEncoderConfig}
 */
export function encoderConfig(codec, width, height, bitrate) {
  const settings = { codec: CODEC_STRINGS[codec], width, height, bitrate, framerate: 30 };
  const forH264 = codec === "H264" ? { avc: { format: /** @type {const} */ ("annexb") } } : {};
  return { ...settings, latencyMode: "realtime", ...forH264 };
}

/**
 * @param {CodecName} codec
 * @returns {VideoDecoderConfig}
 */
export function decoderConfig(codec) {
  return { codec: CODEC_STRINGS[codec], optimizeForLatency: true };
}

/**
 * The first of the server's codecs that this browser encodes, and the first that it decodes; null where there is none.
 * @param {string[]} offered
 * @returns {Promise<{driving: CodecName, animated: CodecName} | null>}
 */
export async function chooseCodecs(offered) {
  if (!hasWebCodecs()) return null;
  const known = /** @type {CodecName[]} */ (offered.filter((name) => name in CODEC_STRINGS));
  const encodes = async (/** @type {CodecName} */ name) =>
    (await VideoEncoder.isConfigSupported(encoderConfig(name, 640, 480, 1_000_000))).supported;
  const decodes = async (/** @type {CodecName} */ name) =>
    (await VideoDecoder.isConfigSupported(decoderConfig(name))).supported;
  const driving = await first(known, encodes);
  const animated = await first(known, decodes);
  return driving === null || animated === null ? null : { driving, animated };
}

/**
 * @param {CodecName[]} names
 * @param {(name: CodecName) => Promise<boolean | undefined>} works
 */
async function first(names, works) {
  for (const name of names) if (await works(name).catch(() => false)) return name;
  return null;
}

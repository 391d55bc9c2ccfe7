/** @file Opus for a WebSocket, by WebCodecs. */

export const RATE = 48_000;
export const CHANNELS = 2;
/** Samples of 20 ms, a packet. */
export const BLOCK = 960;
/** By how much later than the sample that it began with an encoder of Opus has sound. */
export const LOOKAHEAD_US = 6500;

/** @type {AudioDecoderConfig} */
export const DECODER = { codec: "opus", sampleRate: RATE, numberOfChannels: CHANNELS };
/** @type {AudioEncoderConfig} */
export const ENCODER = { ...DECODER, bitrate: 64_000 };

/** Whether this browser encodes and decodes it, and gives and takes sound. */
export async function hasOpus() {
  if (typeof AudioEncoder !== "function" || typeof AudioDecoder !== "function") return false;
  if (typeof AudioWorkletNode !== "function") return false;
  const asked = [AudioEncoder.isConfigSupported(ENCODER), AudioDecoder.isConfigSupported(DECODER)];
  return (await Promise.all(asked).catch(() => [{ supported: false }])).every(({ supported }) => supported);
}

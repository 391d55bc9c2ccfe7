/** @file Binary messages of the WebSocket; `server/websocket/media_message.py` is their other end. */

export const KINDS = /** @type {const} */ ({ video: 1, audio: 2, acknowledgement: 3, keyframeRequest: 4 });
const HEADER_BYTES = 12;
const KEYFRAME = 1;

/**
 * @typedef {object} MediaMessage
 * @property {number} kind
 * @property {boolean} isKeyframe
 * @property {number} timestamp in microseconds
 * @property {Uint8Array} payload
 */

/**
 * @param {number} kind
 * @param {number} timestamp in microseconds
 * @param {{byteLength: number, isKeyframe: boolean, copyTo: (to: Uint8Array) => void}} [frame]
 * @returns {ArrayBuffer}
 */
export function packMessage(kind, timestamp, frame) {
  const data = new ArrayBuffer(HEADER_BYTES + (frame?.byteLength ?? 0));
  const view = new DataView(data);
  view.setUint8(0, kind);
  view.setUint8(1, frame?.isKeyframe ? KEYFRAME : 0);
  view.setBigUint64(4, BigInt(timestamp));
  frame?.copyTo(new Uint8Array(data, HEADER_BYTES));
  return data;
}

/**
 * @param {ArrayBuffer} data
 * @returns {MediaMessage}
 */
export function parseMessage(data) {
  const view = new DataView(data);
  return {
    kind: view.getUint8(0),
    isKeyframe: (view.getUint8(1) & KEYFRAME) !== 0,
    timestamp: Number(view.getBigUint64(4)),
    payload: new Uint8Array(data, HEADER_BYTES),
  };
}

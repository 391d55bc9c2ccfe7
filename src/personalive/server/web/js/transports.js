/**
 * @file How the page is connected: by WebRTC or by a WebSocket, as a person has chosen, or by WebRTC until that turns out
 * not to get through.
 */

import { ApiError } from "./api.js";
import { Call } from "./call.js";
import { byId } from "./dom.js";
import { say, text } from "./strings.js";
import { sleep } from "./time.js";
import { WebSocketCall, websocketCodecs } from "./websocket-call.js";

/** How long WebRTC may take to connect before a WebSocket is tried. */
const WEBRTC_MS = 4000;

/** @typedef {"automatic" | "webrtc" | "websocket"} Wanted */
/** @typedef {Call | WebSocketCall} AnyCall */

/**
 * @typedef {object} Opening
 * @property {MediaStream} driver
 * @property {MediaStreamTrack | null} sound sent besides, where the connection carries sound
 * @property {Record<string, unknown>} parameters `reference_id` and run parameters
 * @property {import("./call.js").Heard} heard
 * @property {(call: AnyCall) => void} onCall called with each connection before it is offered
 * @property {() => void} onFallback called when a WebSocket is tried in place of WebRTC
 * @property {AbortSignal} signal
 */

/** Opens connections. */
export class Transports {
  /** Whether WebRTC did not get through since it was last chosen. */
  #blocked = false;

  /** @param {import("./api.js").Api} api */
  constructor(api) {
    this.api = api;
    this.select = /** @type {HTMLSelectElement} */ (byId("transport"));
    this.select.addEventListener("change", () => (this.#blocked = false));
  }

  /** @returns {Wanted} */
  get wanted() {
    return /** @type {Wanted} */ (this.select.value);
  }

  /** @param {Wanted | undefined} kept what was chosen before the page was loaded again */
  restore(kept) {
    if (kept === "webrtc" || kept === "websocket") this.select.value = kept;
  }

  /**
   * Show what a connection uses; null for none.
   * @param {AnyCall | null} call
   */
  show(call) {
    const name = call instanceof Call ? text.webRtc : text.webSocket;
    byId("transport-used").textContent = call === null ? "" : say.connectedBy(name);
  }

  /**
   * Open a connection. Throws `ApiError`.
   * @param {Opening} opening
   * @returns {Promise<AnyCall>}
   */
  async open(opening) {
    const { wanted } = this;
    if (wanted === "websocket" || (wanted === "automatic" && this.#blocked)) return this.#openWebSocket(opening);
    if (wanted === "automatic" && typeof RTCPeerConnection !== "function") return this.#openWebSocket(opening);
    const { iceServers } = await this.api.get("/api/v1/webrtc/ice-servers", { signal: opening.signal });
    opening.signal.throwIfAborted();
    let isOpen = wanted === "webrtc";
    const { heard } = opening;
    // Until it is connected, that it is lost only means that it does not get through.
    const lost = (/** @type {Promise<void>} */ left) => isOpen && heard.lost(left);
    const call = new Call(this.api, { ...heard, lost }, iceServers);
    opening.onCall(call);
    await call.offer(opening.driver, opening.sound, opening.parameters);
    if (isOpen) return call;
    const connected = await Promise.race([call.connected, sleep(WEBRTC_MS, opening.signal).then(() => false)]);
    opening.signal.throwIfAborted();
    isOpen = true;
    if (connected) return call;
    const why = await websocketCodecs(this.api).then(() => null, (error) => /** @type {ApiError} */ (error));
    opening.signal.throwIfAborted();
    if (why !== null) {
      if (!call.isClosed) return call; // it may still get through
      throw why;
    }
    opening.onFallback();
    await call.close(); // its place on the server must be free
    opening.signal.throwIfAborted();
    this.#blocked = true;
    return this.#openWebSocket(opening);
  }

  /** @param {Opening} opening */
  async #openWebSocket(opening) {
    const call = new WebSocketCall(this.api, opening.heard);
    opening.onCall(call);
    try {
      await call.offer(opening.driver, opening.sound, opening.parameters);
    } catch (error) {
      if (error instanceof ApiError && error.message === say.webSocketBlocked) this.#blocked = false;
      throw error;
    }
    return call;
  }
}

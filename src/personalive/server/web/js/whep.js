/** @file Watching a session, by WHEP: frames and sound come, nothing goes. */

const GATHERING_MS = 1000;
const SILENCE_MS = 5000;
const LOOK_EVERY_MS = 1000;

/**
 * Watch a session until it ends. Resolves then; throws `ApiError` where there is none.
 * @param {import("./api.js").Api} api
 * @param {string | null} session the newest if null
 * @param {(stream: MediaStream) => void} onStream
 */
export async function watch(api, session, onStream) {
  const { iceServers } = await api.get("/api/v1/webrtc/ice-servers");
  const peer = new RTCPeerConnection({ iceServers });
  /** @type {string | null} */
  let place = null;
  try {
    peer.addTransceiver("video", { direction: "recvonly" });
    peer.addTransceiver("audio", { direction: "recvonly" });
    peer.ontrack = ({ track, streams }) => {
      // The sound comes in the same stream.
      if (track.kind === "video") onStream(streams[0] ?? new MediaStream([track]));
    };
    await peer.setLocalDescription(await peer.createOffer());
    await gathered(peer);
    const path = session === null ? "/whep" : `/whep?session=${encodeURIComponent(session)}`;
    const body = peer.localDescription?.sdp ?? "";
    const answer = await api.request(path, { method: "POST", body, type: "application/sdp" });
    place = answer.headers.get("Location");
    await peer.setRemoteDescription({ type: "answer", sdp: await answer.text() });
    await silence(peer);
  } finally {
    peer.close();
    if (place !== null) api.request(place, { method: "DELETE" }).catch(() => {});
  }
}

/** @param {RTCPeerConnection} peer */
function gathered(peer) {
  return new Promise((resolve) => {
    setTimeout(resolve, GATHERING_MS);
    peer.onicegatheringstatechange = () => peer.iceGatheringState === "complete" && resolve(null);
  });
}

/**
 * Until no frame has come for a while. The server repeats the last one of a stream that stands still.
 * @param {RTCPeerConnection} peer
 */
async function silence(peer) {
  let frames = -1;
  let since = performance.now();
  while (performance.now() - since < SILENCE_MS && !["failed", "closed"].includes(peer.connectionState)) {
    await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
    for (const report of (await peer.getStats()).values()) {
      if (report.type !== "inbound-rtp" || report.kind !== "video" || report.framesReceived === frames) continue;
      frames = report.framesReceived;
      since = performance.now();
    }
  }
}

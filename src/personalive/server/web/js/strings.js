/** @file Every word that the page says. To translate the page, translate this file. */

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const hundredths = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });

/** Fixed texts, by the names that `data-text`, `data-label` and `data-hint` in the HTML refer to. */
export const text = {
  skip: "Skip to the result",
  setup: "Set up",
  result: "Result",
  resultVideo: "Animated portrait",
  stillImage: "The chosen portrait",
  driverVideo: "The video that the portrait follows",
  driverCaption: "Video",
  ownCamera: "You",
  api: "API",
  stageLink: "Result only",
  stageHint: "The result and nothing else, for OBS and other programs. Opens in a new window.",
  responsible:
    "Use your own face, the face of somebody who agreed, or of nobody who exists, and say that the result is synthetic. "
    + "Pictures and video go to this server and nowhere else.",

  portrait: "Portrait",
  portraits: "Portraits to choose from",
  samplePortrait: "Sample",
  upload: "Upload",
  takePicture: "Take a picture",
  portraitHint: "You can also drop or paste a picture anywhere on this page.",
  noFaceAnyway: "Use it anyway",
  whoseFace: "Whose face",
  chooseFace: "Whose face should move? Choose one.",
  drawFace: "Is it a painting, a cartoon or an animal? Draw a box around its face, from chin to forehead.",
  drawFaceKeys: "Draw a box around the face. Arrow keys move it, with Shift they resize it.",
  useBox: "Use this box",
  choosePicture: "Choose a picture file",
  dropHere: "Drop the picture to use it",
  inviteTitle: "Whose portrait?",
  inviteText: "Choose one under Portrait. You can also drop or paste a picture here.",

  driver: "Video to follow",
  driverHint: "The portrait does what the face in it does.",
  camera: "Camera",
  videoFile: "Video file",
  sampleClip: "Sample clip",
  whichCamera: "Which camera",
  chooseVideo: "Choose a video file",

  pipeline: "Method",
  looking: "Looking at what this server can run…",
  before: "Before start",
  more: "For experts",
  beforeHint: "These count from the next start on.",
  download: "Download",
  tryAgain: "Try again",

  motion: "Movement",
  defaults: "Defaults",
  presets: "Presets",
  presetNames: {
    "expression-only": "Expression only",
    "head-only": "Head only",
    calm: "Calm",
    exaggerated: "Exaggerated",
  },
  forgetSettings: "Reset all settings",
  forgetSettingsHint: "Settings are kept in this browser between visits. This sets all of them to their defaults.",
  settingsForgotten: "All settings have their defaults again.",

  transport: "Connection",
  transportHint: "Automatic: WebRTC, or a WebSocket where that does not get through, which has a little more delay.",
  automatic: "Automatic",
  webRtc: "WebRTC",
  webSocket: "WebSocket",

  start: "Start",
  stop: "Stop",
  cancel: "Cancel",
  tryNow: "Try now",

  tools: "While it runs",
  pause: "Pause",
  resume: "Resume",
  reset: "Reset",
  resetHint: "Start over: look straight ahead, mouth closed, then press it",
  sound: "Sound",
  soundHint: "Send your microphone, or the sound of the video file, with the result",
  listen: "Listen",
  listenHint: "Play the result's sound here. Use headphones with a microphone, or it hears itself",
  mirror: "Mirror",
  mirrorHint: "Mirror what you see; what you save stays as it is",
  compare: "Compare",
  off: "Result",
  side: "Side by side",
  overlay: "Overlay",
  snapshot: "Save a picture",
  record: "Record",
  stopRecording: "Stop recording and save",
  pip: "Picture in picture",
  full: "Full screen",
  leaveFull: "Leave full screen",

  figures: "Figures",
  figureIn: "Video sent",
  figureInHint: "Frames per second that reach the server",
  figureOut: "Result shown",
  figureOutHint: "Frames per second that come back",
  figureDelay: "Delay",
  figureDelayHint: "From the camera to this screen",
  delayParts: "Where the delay comes from",
  partWindow: "Inside the model",
  partStep: "Computing",
  partSend: "Sending",
  partNetwork: "Network and browser",
  adviseTurn: "Mostly waiting for the server to be free. Fewer visitors at once or a faster GPU would shorten it.",
  adviseWindow: "Mostly the model, which looks at many frames at once. A camera with more frames per second would shorten it.",
  adviseStep: "Mostly computing. Fewer visitors at once or a faster GPU would shorten it.",
  adviseSend:
    "Mostly sending frames one by one, for even motion. A camera with more frames per second would shorten it.",
  adviseNetwork: "Mostly network and browser. A cable in place of Wi-Fi or a nearer server would shorten it.",
  figureDropped: "Skipped",
  figureDroppedHint: "Frames of the video left out to keep the delay small",
  figureFace: "Face",
  figureFaceHint: "Whether a face is found in the video to follow",

  pictureTitle: "Take a picture",
  takeIt: "Take it",
  pictureHint: "Look straight ahead, mouth closed: the portrait moves from there.",

  keyTitle: "This server wants its key",
  keyText: "The person who runs the server has it. It is kept until this tab is closed.",
  keyLabel: "API key",
  keyGo: "Continue",
  keyWrong: "The server does not accept this key.",

  nothing: "–",
};

/** Sentences with something to fill in. */
export const say = {
  pageTitle: (/** @type {string} */ state) => (state ? `${state} · PersonaLive` : "PersonaLive"),

  needPortrait: "Choose a portrait to begin.",
  needDriver: "Now choose the video to follow.",
  ready: "Ready.",

  notAPicture: (/** @type {string} */ name) =>
    `${name} is not a picture that can be used. Choose a JPEG, PNG, WebP, HEIC or AVIF file.`,
  pictureTooLarge: (/** @type {string} */ name) => `${name} is too large. A picture may have 100 MB.`,
  notAVideo: (/** @type {string} */ name) =>
    `${name} is not a video that this browser can play. Choose an MP4, WebM or MOV file.`,
  noPicturePasted: "There is no picture to paste. Copy a picture first.",
  pastedName: "Pasted picture",
  shotName: "Camera picture",
  portraitChosen: (/** @type {string} */ name) => `Portrait: ${name}.`,
  driverChosen: (/** @type {string} */ name) => `Video to follow: ${name}.`,
  faceNumber: (/** @type {number} */ number, /** @type {number} */ count) => `Face ${number} of ${count}`,
  manyFaces: (/** @type {number} */ count) => `The picture shows ${count} faces.`,
  noFaceInPicture: "No face was found in this picture.",
  remove: (/** @type {string} */ name) => `Remove ${name}`,
  videoNotKept: (/** @type {string} */ name) => `Choose ${name} once more: it could not be kept when the page was left.`,

  cameraBlocked:
    "The camera is blocked. Allow it for this page in the browser's address bar, then choose Camera again.",
  noCamera: "No camera was found. Connect one, or choose a video file or the sample clip.",
  cameraTaken: "The camera is in use by another program. Close that program, then choose Camera again.",
  cameraInsecure:
    "Browsers give the camera only to pages opened by https or on this machine. Choose a video file, or open this page "
    + "by https.",
  cameraFailed: (/** @type {string} */ why) => `The camera cannot be used: ${why}`,
  cameraStopped: "The camera has stopped. Connect it again, or choose another video to follow.",
  cameraOff: "The camera is off until you press Start.",
  openingCamera: "Opening the camera",
  unnamedCamera: (/** @type {number} */ index) => `Camera ${index}`,
  noCapture: "This browser cannot play a file as a camera. Use the camera, or another browser.",

  soundOn: "The sound goes out with the result, as late as its picture.",
  soundOff: "The result has no sound.",
  noSoundByWebSocket: "Sound over a WebSocket needs Opus in the server and in this browser (AudioEncoder): use WebRTC, or a current browser.",
  noSoundInVideo: "This video has no sound.",
  microphoneBlocked:
    "The microphone is blocked. Allow it for this page in the browser's address bar, then press Sound again.",
  noMicrophone: "No microphone was found. Connect one, then press Sound again.",
  microphoneInsecure: "Browsers give the microphone only to pages opened by https or on this machine.",
  microphoneFailed: (/** @type {string} */ why) => `The microphone cannot be used: ${why}`,

  loading: (/** @type {string} */ name) => `Loading ${name}`,
  waitingForLoad: "The server is loading another method",
  preparing: "Preparing the portrait",
  connecting: "Connecting",
  firstFrame: "Waiting for the first frame",
  slowFirstFrame: "Waiting for the first frame. On a processor without a GPU this can take a minute.",

  live: "Live",
  paused: "Paused",
  following: "Following the face",
  noFaceYet: "No face in view. The still portrait is shown until one appears.",
  noFace: "No face in view. The last expression is held.",
  noFrames: "No frames of the video reach the server.",
  connectedBy: (/** @type {string} */ transport) => `Connected by ${transport}.`,
  fallingBack: "WebRTC does not get through. Connecting by a WebSocket…",
  noWebSocketHere: "This server cannot be reached by a WebSocket, only by WebRTC.",
  noWebCodecs:
    "This browser cannot encode video for a WebSocket here: WebCodecs is missing. Open this page by https or on this "
    + "machine, in a recent Chrome, Edge, Safari or Firefox.",
  webSocketBlocked:
    "The WebSocket to the server cannot be opened. A proxy between may not pass it on; choose WebRTC as the connection.",
  lost: (/** @type {number} */ seconds) => `Connection lost. Trying again in ${seconds} s.`,
  retrying: "Connection lost. Trying again…",
  interrupted: (/** @type {string} */ why, /** @type {number} */ seconds) => `${why} Trying again in ${seconds} s.`,
  retryingAfter: (/** @type {string} */ why) => `${why} Trying again…`,
  gaveUp: (/** @type {string} */ why) => `${why} It did not come back. Press Start to try once more.`,
  recovered: "Connected again.",
  busy: (/** @type {number} */ seconds) =>
    `The server is busy: all its places are taken. Trying again in ${seconds} s.`,
  retryingBusy: "The server is busy. Trying again…",
  ended: (/** @type {string} */ why) => `The session ended. ${why}`,
  replaced: "Somebody has loaded another method on this server. Press Start to load yours again.",
  unreachable: "The server cannot be reached. Is it still running?",
  answered: (/** @type {number} */ status) => `The server answered with status ${status}.`,
  keyNeeded: "The server wants its key. Press Start to enter it.",
  swapped: (/** @type {string} */ name) => `The portrait is now ${name}.`,
  wasReset: "Started over from the portrait's own pose.",

  previewNote: "Bends the picture itself: a preview, not the diffusion model. Needs no download and no GPU.",
  diffusionNote: "The AI model (diffusion) paints every frame. Made for a GPU; slow without one.",
  runningPreview: "Preview, not the diffusion model",
  notReady: (/** @type {string} */ why) => `Not ready: ${why.replace(/\.$/, "")}.`,
  weightsMissing: (/** @type {string} */ size) => `This server must download it first (${size}).`,
  weightsSizeUnknown: "12.1 GB",
  downloadStarting: "Asking for the list of files…",
  downloaded: (/** @type {number} */ done, /** @type {number} */ total, /** @type {string} */ file) =>
    total < 1e9
      ? `${whole.format(done / 1e3)} of ${whole.format(total / 1e3)} kB · ${file}`
      : `${tenths.format(done / 1e9)} of ${tenths.format(total / 1e9)} GB · ${file}`,
  downloadDone: "It is here.",

  saved: (/** @type {string} */ name, /** @type {boolean} */ alone) =>
    alone ? `Saved ${name}: the result alone.` : `Saved ${name}.`,
  savedWith: (/** @type {string} */ name, /** @type {string} */ note) => `Saved ${name}. ${note}`,
  notSaved: "The server has nothing to save. Try again while the result is shown.",
  recordingFor: (/** @type {number} */ seconds, /** @type {boolean} */ alone) => {
    const time = `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
    return alone ? `${time} · result alone` : time;
  },
  recording: (/** @type {boolean} */ alone) =>
    alone ? "Recording the result alone, without the video beside it." : "Recording.",
  recordingCut: (/** @type {string} */ name) => `The recording was cut short; what there is of it is saved as ${name}.`,

  perSecond: (/** @type {number} */ rate) => `${whole.format(rate)}`,
  perSecondUnit: "frames/s",
  seconds: (/** @type {number} */ seconds) => (seconds < 10 ? hundredths.format(seconds) : tenths.format(seconds)),
  secondsUnit: "s",
  percent: (/** @type {number} */ share) => whole.format(100 * share),
  percentUnit: "%",
  partChunk: (/** @type {number | null} */ frames) =>
    frames !== null && frames > 1 ? `Waiting for ${frames} frames` : "Waiting to begin",
  adviseChunk: (/** @type {number} */ frames) =>
    frames > 1
      ? `Mostly waiting for ${frames} frames, which are computed at once. A camera with more frames per second would `
        + "shorten it."
      : "Mostly waiting for the next frame. A camera with more frames per second would shorten it.",
  adviseLatency: () =>
    `Mostly inside the model. To shorten it, stop and choose a faster ${parameters.latency.label} under “${text.before}”.`,
  adviseSmaller: () =>
    `Mostly computing. A smaller ${parameters.width.label} and ${parameters.height.label} under “${text.before}”, or a `
    + "faster GPU, would shorten it.",
  adviseSkipped: () =>
    "The server is too slow for every frame, so motion is less smooth. Stop, and choose a smaller "
    + `${parameters.width.label} and ${parameters.height.label} under “${text.before}”; or use a faster GPU.`,
  inView: "In view",
  notInView: "Not in view",

  stageKey: "This server wants its key: add #key=… to this page's address.",
  stageWaiting: "Nothing is shown yet. The result appears here automatically as soon as a session runs.",
  stageNoSession:
    "The session that this address names is not running. Without ?session=…, the newest result appears here.",
};

/**
 * Words for parameters that are known; others are called what their schema calls them.
 * @type {Record<string, {label: string, options?: Record<string, string>, hint?: string}>}
 */
export const parameters = {
  motion: {
    label: "The portrait's own pose and smile",
    options: { relative: "Kept", absolute: "Replaced" },
    hint: "Kept: movements are added to it. Replaced: it looks exactly as the face in the video does.",
  },
  expression: { label: "Expression" },
  pose: { label: "Head turning" },
  translation: { label: "Head shifting" },
  scale: { label: "Coming nearer" },
  smoothing: { label: "Smoothing" },
  driver_face: {
    label: "Whose face in the video",
    options: { auto: "Most prominent", largest: "Largest", left: "Leftmost", right: "Rightmost" },
  },
  keyframe_threshold: { label: "How new an expression must be to be remembered" },
  height: { label: "Height" },
  width: { label: "Width" },
  seed: { label: "Seed", hint: "Another number, another variation." },
  latency: {
    label: "Speed",
    options: { quality: "Best picture", balanced: "Balanced", low: "Fast", lowest: "Fastest" },
    hint: "Faster is less delay, and a picture that is a little worse.",
  },
  vae: { label: "Sharpness", options: { full: "Full", tiny: "Less, faster" } },
  dtype: { label: "Number format" },
  max_keyframes: { label: "Expressions remembered" },
  face_detection: { label: "Look for the face" },
};

/**
 * A pipeline's name as the page says it.
 * @param {{id: string, name: string}} pipeline
 */
export function pipelineName(pipeline) {
  return { preview: "Preview", personalive: "PersonaLive" }[pipeline.id] ?? pipeline.name;
}

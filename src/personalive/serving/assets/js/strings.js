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
  driverVideo: "What drives the portrait",
  driverCaption: "Driver",
  api: "API",
  stageLink: "Stage view",
  stageHint: "Only the result, for OBS and other programs. Opens in a new window.",
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
  choosePicture: "Choose a picture file",
  dropHere: "Drop the picture to use it",
  inviteTitle: "Whose portrait?",
  inviteText: "Choose one under Portrait. You can also drop or paste a picture here.",

  driver: "Driver",
  driverHint: "The face that the portrait follows.",
  camera: "Camera",
  videoFile: "Video file",
  sampleClip: "Sample clip",
  whichCamera: "Which camera",
  chooseVideo: "Choose a video file",

  pipeline: "Pipeline",
  looking: "Looking at what this server can run…",
  before: "Before start",
  more: "More",
  beforeHint: "These count from the next start on.",
  download: "Download",
  tryAgain: "Try again",

  motion: "Motion",
  defaults: "Defaults",

  start: "Start",
  stop: "Stop",
  cancel: "Cancel",
  tryNow: "Try now",
  dismiss: "Dismiss",

  tools: "While it runs",
  pause: "Pause",
  resume: "Resume",
  reset: "Reset",
  resetHint: "Forget the driver's first pose and begin anew",
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
  figureIn: "Driver sends",
  figureInHint: "Frames per second that reach the server",
  figureOut: "Result shows",
  figureOutHint: "Frames per second that come back",
  figureDelay: "Delay",
  figureDelayHint: "From the camera to this screen",
  delayParts: "Where the delay comes from",
  partWindow: "Inside the model",
  partStep: "Computing",
  partSend: "Sending",
  partNetwork: "Network and browser",
  adviseTurn:
    "Most of the delay: waiting for the server to be free. A faster GPU or fewer sessions at once would shorten it.",
  adviseWindow: "Most of the delay: the model looks at many frames at once. More frames per second would shorten it.",
  adviseStep: "Most of the delay: computing. A faster GPU or fewer sessions at once would shorten it.",
  adviseSend:
    "Most of the delay: frames are sent one by one, for even motion. More frames per second would shorten it.",
  adviseNetwork:
    "Most of the delay: network and browser. A cable in place of Wi-Fi or a nearer server would shorten it.",
  figureDropped: "Skipped",
  figureDroppedHint: "Driving frames left out to keep the delay small",
  figureFace: "Face",
  figureFaceHint: "Whether the driver's face is found",

  pictureTitle: "Take a picture",
  takeIt: "Take it",
  pictureHint: "Look straight ahead, mouth closed: the portrait moves from there.",

  keyTitle: "This server wants its key",
  keyText: "Whoever runs the server has it. It is kept until this tab is closed.",
  keyLabel: "API key",
  keyGo: "Continue",
  keyWrong: "The server does not accept this key.",

  nothing: "–",
  noScript: "This page needs JavaScript.",
};

/** Sentences with something to fill in. */
export const say = {
  pageTitle: (/** @type {string} */ state) => (state ? `${state} · PersonaLive` : "PersonaLive"),

  needPortrait: "Choose a portrait to begin.",
  needDriver: "Now choose what drives it.",
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
  driverChosen: (/** @type {string} */ name) => `Driver: ${name}.`,

  cameraBlocked:
    "The camera is blocked. Allow it for this page in the browser's address bar, then choose Camera again.",
  noCamera: "No camera was found. Connect one, or choose a video file or the sample clip.",
  cameraTaken: "The camera is in use by another program. Close that program, then choose Camera again.",
  cameraInsecure:
    "Browsers give the camera only to pages opened by https or on this machine. Choose a video file, or open this page "
    + "by https.",
  cameraFailed: (/** @type {string} */ why) => `The camera cannot be used: ${why}`,
  cameraStopped: "The camera has stopped. Choose a driver again.",
  unnamedCamera: (/** @type {number} */ index) => `Camera ${index}`,
  noCapture: "This browser cannot play a file as a camera. Use the camera, or another browser.",

  loading: (/** @type {string} */ name) => `Loading ${name}`,
  waitingForLoad: "The server is loading a pipeline",
  preparing: "Preparing the portrait",
  connecting: "Connecting",
  firstFrame: "Waiting for the first frame",
  slowFirstFrame: "Waiting for the first frame. On a processor without a GPU this can take a minute.",

  live: "Live",
  paused: "Paused",
  following: "Following the driver",
  noFaceYet: "No face in view. The still portrait is shown until one appears.",
  noFace: "No face in view. The last expression is held.",
  noFrames: "No frames reach the server from the driver.",
  lost: (/** @type {number} */ seconds) => `Connection lost. Trying again in ${seconds} s.`,
  retrying: "Connection lost. Trying again…",
  interrupted: (/** @type {string} */ why, /** @type {number} */ seconds) => `${why} Trying again in ${seconds} s.`,
  retryingAfter: (/** @type {string} */ why) => `${why} Trying again…`,
  gaveUp: (/** @type {string} */ why) => `${why} It did not come back. Press Start to try once more.`,
  recovered: "Connected again.",
  busy: (/** @type {number} */ seconds) =>
    `The server is busy: all its places are taken. Trying again in ${seconds} s.`,
  retryingBusy: "The server is busy. Trying again…",
  stopped: "Stopped.",
  ended: (/** @type {string} */ why) => `The session ended. ${why}`,
  replaced: "Somebody has loaded another pipeline on this server. Press Start to load yours again.",
  unreachable: "The server cannot be reached. Is it still running?",
  answered: (/** @type {number} */ status) => `The server answered with status ${status}.`,
  keyNeeded: "The server wants its key. Press Start to enter it.",
  swapped: (/** @type {string} */ name) => `The portrait is now ${name}.`,
  wasReset: "Begun anew.",

  previewNote: "A landmark warp of the portrait, not the diffusion model. Needs no download and no GPU.",
  diffusionNote: "The diffusion model. Made for a GPU; slow without one.",
  runningPreview: "Preview: a landmark warp, not the diffusion model",
  notReady: (/** @type {string} */ why) => `Not ready: ${why.replace(/\.$/, "")}.`,
  weightsMissing: (/** @type {string} */ size) => `Its weights are not here yet (${size}).`,
  weightsSizeUnknown: "12.1 GB",
  downloadStarting: "Asking for the list of files…",
  downloaded: (/** @type {number} */ done, /** @type {number} */ total, /** @type {string} */ file) =>
    total < 1e9
      ? `${whole.format(done / 1e3)} of ${whole.format(total / 1e3)} kB · ${file}`
      : `${tenths.format(done / 1e9)} of ${tenths.format(total / 1e9)} GB · ${file}`,
  downloadDone: "The weights are here.",

  saved: (/** @type {string} */ name) => `Saved ${name}.`,
  recordingFor: (/** @type {number} */ seconds) =>
    `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`,
  recording: "Recording.",
  cannotRecord: "This browser cannot record video.",
  recordingCut: (/** @type {string} */ name) => `The connection was lost; what had been recorded is saved as ${name}.`,

  perSecond: (/** @type {number} */ rate) => `${whole.format(rate)}`,
  perSecondUnit: "frames/s",
  seconds: (/** @type {number} */ seconds) => (seconds < 10 ? hundredths.format(seconds) : tenths.format(seconds)),
  secondsUnit: "s",
  percent: (/** @type {number} */ share) => whole.format(100 * share),
  percentUnit: "%",
  partChunk: (/** @type {number} */ frames) => (frames > 1 ? `Waiting for ${frames} frames` : "Waiting to begin"),
  adviseChunk: (/** @type {number} */ frames) =>
    `Most of the delay: ${frames} frames are computed at once. More frames per second would shorten it.`,
  adviseLatency: () =>
    `Most of the delay: inside the model. Stop, and choose a lower ${parameters.latency.label} under “${text.before}”.`,
  inView: "In view",
  notInView: "Not in view",

  stageKey: "This server wants its key: add #key=… to this page's address.",
};

/**
 * Words for parameters that are known; others are called what their schema calls them.
 * @type {Record<string, {label: string, options?: Record<string, string>}>}
 */
export const parameters = {
  motion: { label: "Carry over", options: { relative: "Changes only", absolute: "Pose and all" } },
  expression: { label: "Expression" },
  pose: { label: "Head pose" },
  translation: { label: "Head shift" },
  scale: { label: "Nearing" },
  smoothing: { label: "Smoothing" },
  keyframe_threshold: { label: "Keyframe threshold" },
  height: { label: "Height" },
  width: { label: "Width" },
  seed: { label: "Seed" },
  latency: { label: "Latency", options: { quality: "Quality", balanced: "Balanced", low: "Low", lowest: "Lowest" } },
  vae: { label: "Decoder", options: { full: "Full", tiny: "Tiny" } },
  dtype: { label: "Number format" },
  max_keyframes: { label: "Keyframes at most" },
  face_detection: { label: "Look for the face" },
};

/**
 * A pipeline's name as the page says it.
 * @param {{id: string, name: string}} pipeline
 */
export function pipelineName(pipeline) {
  return { preview: "Preview", personalive: "PersonaLive" }[pipeline.id] ?? pipeline.name;
}

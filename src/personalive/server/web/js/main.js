/** @file The page: it connects all parts. */

import { Api, ApiError } from "./api.js";
import { byId, fill } from "./dom.js";
import { DriverPicker } from "./driver-picker.js";
import { DriverError } from "./drivers.js";
import { FaceChoice } from "./face-choice.js";
import { Figures } from "./figures.js";
import { askForKey, readKey, watchKey } from "./key.js";
import { Motion } from "./motion.js";
import { Pipelines } from "./pipelines.js";
import { PortraitPicker } from "./portrait-picker.js";
import { Screen } from "./screen.js";
import { Session } from "./session.js";
import { defaultSettings, forgetSettings, keepSettings, keptSettings } from "./settings.js";
import { Sound } from "./sound.js";
import { keepChoices, keptChoices, sweepFiles } from "./storage.js";
import { say, text } from "./strings.js";
import { sleep } from "./time.js";
import { Toolbar } from "./toolbar.js";
import { Transports } from "./transports.js";

const SLOW_MS = 5000;
const LOOK_AGAIN_MS = 2000;
const PREVIEW = "preview";

fill(document);
const api = new Api(readKey, askForKey);
const transports = new Transports(api);
const session = new Session(api, transports);
const screen = new Screen();
const figures = new Figures();
const faceChoice = new FaceChoice();
let settings = keptSettings();
const motion = new Motion((changed, all) => {
  session.setParameters(changed, all);
  keep();
});
const toolbar = new Toolbar(screen, { pause, reset, announce, api, session: () => session.id });
const pipelines = new Pipelines(api, (pipeline) => {
  motion.use(pipeline.run_parameters, pipeline.presets);
  motion.restore(settings.run[pipeline.id] ?? {});
  if (!pipelines.isLoaded) pipelines.restore(settings.load[pipeline.id] ?? {}); // what is loaded serves others too
  figures.use(pipeline);
  forgetError();
  showWhatIsMissing();
});
const portraits = new PortraitPicker(usePortrait);
const drivers = new DriverPicker(useDriver);
const sound = new Sound(session, screen.result, announce);
const go = /** @type {HTMLButtonElement} */ (byId("go"));

/** The session's state that the server sent last. */
let state = "";
/** Whether a frame of the result has been seen. @type {boolean} */
let shown = false;
/** Whether the connection was lost since the last start. @type {boolean} */
let wasLost = false;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let slow;
/** What the last session failed by is shown: counted up when it is shown no more. */
let failures = 0;
/** Whether what was chosen before is shown again by now, and the page has not been left. */
let restored = false;

go.onclick = () => (session.active ? session.stop() : start());
session.on("phase", (detail) => showPhase(detail));
session.on("step", (detail) => {
  const first = session.phase === "starting" && !shown;
  if (first || session.why !== null) screen.showStep(detail.text, detail.progress);
});
session.on("wait", (detail) => showWait(detail));
session.on("stream", (detail) => {
  screen.showResult(detail, () => {
    shown = true;
    clearTimeout(slow);
    screen.showStep(null);
    if (wasLost) announce(say.recovered);
    wasLost = false;
    showState();
  });
});
session.on("message", (detail) => void heard(detail));
session.on("driver", (driver) => {
  screen.showDriver(driver);
  toolbar.useDriver(driver);
  drivers.show();
});
session.on("fallback", () => announce(say.fallingBack));
session.on("error", (detail) => showError(detail.sentence, detail.cause));
window.addEventListener("pagehide", () => {
  keep();
  restored = false; // what is left now is not what was chosen
  session.stop();
});
window.addEventListener("pageshow", (event) => {
  if (event.persisted) restored = true;
});
document.addEventListener("visibilitychange", () => document.hidden && keep());
watchKey((key) => {
  const fragment = key === null ? "" : `#key=${encodeURIComponent(key)}`;
  /** @type {HTMLAnchorElement} */ (byId("stage-link")).href = `/stage${fragment}`;
});

figures.clear();
showPhase("idle");
toolbar.restoreView(settings);
byId("forget-settings").onclick = resetSettings;
void restore();

/** Show what was chosen before the page was loaded again. */
async function restore() {
  const kept = keptChoices();
  void sweepFiles();
  transports.restore(kept?.transport);
  const looked = pipelines.look(kept?.pipeline ?? settings.pipeline);
  if (kept?.driver) void drivers.restore(kept.driver);
  if (kept) await portraits.restore(kept);
  await looked;
  if (kept && pipelines.chosen?.id === kept.pipeline) {
    pipelines.restore(kept.load);
    motion.restore(kept.run);
  }
  restored = true;
  if (kept?.recording) void toolbar.saveLeft(kept.recording);
}

/** Keep what is chosen, for when the page is loaded again. */
function keep() {
  if (!restored) return; // what was kept before is all there is
  const pipeline = pipelines.chosen?.id ?? null;
  if (pipeline !== null) {
    const { load, run } = settings;
    const changed = { load: { ...load, [pipeline]: pipelines.changed }, run: { ...run, [pipeline]: motion.values } };
    settings = { pipeline, ...changed, ...toolbar.view };
    keepSettings(settings);
  }
  keepChoices({
    ...portraits.kept,
    driver: drivers.kept,
    recording: toolbar.kept,
    transport: transports.wanted,
    pipeline: pipelines.chosen?.id ?? null,
    load: pipelines.changed,
    run: motion.values,
  });
}

/** Set everything that is kept between visits to its default. */
function resetSettings() {
  forgetSettings();
  settings = defaultSettings();
  pipelines.restore({});
  motion.backToDefaults();
  toolbar.restoreView(settings);
  if (drivers.chosen) toolbar.useDriver(drivers.chosen);
  announce(text.settingsForgotten);
}

function start() {
  if (!portraits.chosen || !drivers.chosen || !pipelines.chosen) return;
  forgetError();
  portraits.complain(null);
  drivers.complain(null);
  shown = wasLost = false;
  state = "";
  session.start({
    pipeline: pipelines.wanted,
    portrait: portraits.chosen,
    driver: drivers.chosen,
    parameters: motion.values,
  });
}

/** @param {import("./portraits.js").Portrait | null} portrait */
async function usePortrait(portrait) {
  forgetError();
  faceChoice.hide();
  showWhatIsMissing();
  keep();
  if (portrait === null) return session.active ? undefined : screen.showInvite();
  if (!shown) screen.showStill(portrait.url);
  if (!session.active) announce(say.portraitChosen(portrait.name), false);
  if (!session.active && !pipelines.isLoaded) return;
  portraits.setBusy(portrait, true);
  try {
    if (session.active) await session.usePortrait(portrait);
    else await portrait.reference(api);
    portraits.setRefused(portrait, false);
    if (portraits.chosen === portrait) screen.still.src = portrait.url;
    keep();
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    refusePortrait(portrait, error);
  } finally {
    portraits.setBusy(portrait, false);
  }
}

/**
 * @param {import("./portraits.js").Portrait} portrait
 * @param {ApiError} error
 */
function refusePortrait(portrait, error) {
  const used = session.active ? (session.plan?.portrait ?? null) : null;
  if (error.passing || error.status === 409) {
    // Not the portrait's fault: it is checked once more at the start, or where the session connects again.
    if (used !== null && used !== portrait) portraits.mark(used);
    if (used !== portrait && error.status !== 409) portraits.complain(error.message);
    void untilReachable().then(() => portraits.chosen === portrait && portraits.complain(null));
    return;
  }
  portraits.setRefused(portrait, true);
  portraits.mark(used === portrait ? null : used);
  const again = () => {
    portrait.lenient = true;
    portraits.complain(null);
    portraits.setRefused(portrait, false);
    portraits.mark(portrait);
    void usePortrait(portrait);
  };
  const { faces } = error;
  const count = faces?.faces.length ?? 0;
  const sentence = !faces ? error.message : count ? say.manyFaces(count) : say.noFaceInPicture;
  portraits.complain(sentence, error.status === 422 ? { label: text.noFaceAnyway, act: again } : undefined);
  if (faces) {
    void faceChoice.show(portrait.picture, faces, (query) => {
      Object.assign(portrait, { face: query, referenceId: null });
      portraits.complain(null);
      portraits.setRefused(portrait, false);
      portraits.mark(portrait);
      void usePortrait(portrait);
    });
  }
  showWhatIsMissing();
}

/** @param {import("./drivers.js").Driver | null} driver */
function useDriver(driver) {
  screen.showDriver(driver);
  sound.useDriver(driver);
  forgetError();
  showWhatIsMissing();
  keep();
  if (driver === null) return;
  toolbar.useDriver(driver);
  if (session.active) void session.useDriver(driver);
  else announce(say.driverChosen(driver.name), false);
}

/** @param {boolean} paused */
function pause(paused) {
  session.setPaused(paused);
  toolbar.setPaused(paused);
  showState();
}

function reset() {
  session.reset();
  announce(say.wasReset);
}

/** @param {Record<string, any>} message of the server */
async function heard(message) {
  if (message.type === "stats") {
    const onTheWay = await session.delay();
    const seen = figures.show(/** @type {import("./figures.js").Stats} */ (message), onTheWay, state);
    if (shown) showState(seen, message.fps_in);
  } else if (message.type === "state") {
    state = message.state;
    showState();
  } else if (message.type === "parameters_updated" && message.reference_id) {
    announce(say.swapped(session.plan?.portrait.name ?? ""));
  } else if (message.type === "error") {
    announce(message.message);
  }
}

/**
 * Show the status of a running session.
 * @param {import("./figures.js").Seen} [seen]
 * @param {number} [rate] driving frames per second
 */
function showState(seen = "unknown", rate = 1) {
  if (session.phase !== "live" || !shown) return;
  if (session.paused) screen.tell(say.paused);
  else if (rate === 0) screen.tell(say.noFrames, "wait");
  else if (state === "waiting_for_face" && seen !== "yes") screen.tell(say.noFaceYet, "wait");
  else if (seen === "no") screen.tell(say.noFace, "wait");
  else if (seen === "yes") screen.tell(say.following, "good");
  else screen.tell(say.live, "good");
}

/** @param {import("./session.js").Phase} phase */
function showPhase(phase) {
  document.body.dataset.phase = phase;
  byId("go-text").textContent = { idle: text.start, starting: text.cancel }[/** @type {string} */ (phase)] ?? text.stop;
  document.title = say.pageTitle(phase === "live" ? say.live : "");
  for (const id of ["pause", "reset", "snapshot", "record", "pip"]) {
    /** @type {HTMLButtonElement} */ (byId(id)).disabled = phase !== "live";
  }
  if (phase === "live") begun();
  if (phase === "retrying") {
    wasLost = true;
    toolbar.finish(true);
    figures.clear();
    showWait(0);
  }
  if (phase === "idle") over();
  showWhatIsMissing();
}

function begun() {
  sound.checkConnection();
  figures.clear();
  toolbar.setPaused(session.paused);
  if (!shown) {
    screen.showStep(say.firstFrame);
    slow = setTimeout(() => screen.showStep(say.slowFirstFrame), SLOW_MS);
  }
  void api.get("/api/v1/pipeline/status").then((status) => pipelines.note(status), () => {});
}

function over() {
  clearTimeout(slow);
  toolbar.finish(false);
  sound.end();
  toolbar.setPaused(false);
  drivers.release();
  screen.showDriver(drivers.chosen);
  figures.clear();
  shown = false;
  screen.clearResult();
  if (!portraits.chosen) screen.showInvite();
  screen.showStep(null);
  screen.tell("");
}

/** @param {number} seconds until the next try */
function showWait(seconds) {
  const busy = session.phase === "busy";
  const { why } = session;
  screen.showStep(null);
  const now = busy ? say.retryingBusy : why === null ? say.retrying : say.retryingAfter(why);
  const waiting = busy ? say.busy(seconds) : why === null ? say.lost(seconds) : say.interrupted(why, seconds);
  const remedy = { label: text.tryNow, act: () => session.tryNow() };
  screen.tell(seconds > 0 ? waiting : now, busy || why !== null ? "wait" : "bad", remedy, now);
}

/**
 * @param {string} sentence
 * @param {ApiError | DriverError | null} cause
 */
function showError(sentence, cause) {
  if (cause instanceof DriverError) return drivers.complain(sentence, cause.cause);
  const chosen = portraits.chosen;
  if (chosen && chosen.referenceId === null && [400, 413, 415, 422].includes(cause?.status ?? 0)) {
    return refusePortrait(chosen, /** @type {ApiError} */ (cause));
  }
  screen.tell(sentence, "bad");
  const failure = ++failures;
  if (cause?.status === 0) void untilReachable().then(() => failure === failures && forgetError());
}

/** Hide the error of the last session. */
function forgetError() {
  failures++;
  if (!session.active) screen.tell("");
}

/** Resolves when the server responds. */
async function untilReachable() {
  for (;;) {
    const answer = await fetch("/health/live").catch(() => null);
    if (answer) return;
    await sleep(LOOK_AGAIN_MS);
  }
}

/** Show what is still to be chosen, beside the start button. */
function showWhatIsMissing() {
  const next = !portraits.chosen ? say.needPortrait : !drivers.chosen ? say.needDriver : say.ready;
  const ready = portraits.chosen && drivers.chosen && pipelines.chosen;
  byId("next").textContent = session.active ? "" : next;
  const preview = pipelines.chosen?.id === PREVIEW;
  for (const note of document.querySelectorAll(".preview-note")) note.textContent = preview ? say.runningPreview : "";
  go.disabled = !session.active && !ready;
}

/**
 * Say something that has been done to screen readers and, unless it can be seen anyway, for a moment on the stage.
 * @param {string} sentence
 * @param {boolean} [shown]
 */
function announce(sentence, shown = true) {
  const place = byId("announced");
  place.textContent = sentence;
  place.toggleAttribute("data-shown", shown);
  setTimeout(() => {
    if (place.textContent === sentence) delete place.dataset.shown;
  }, 4000);
}

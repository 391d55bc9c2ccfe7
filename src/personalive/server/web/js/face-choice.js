/** @file Whose face of a portrait: the faces outlined to choose one, or a box drawn where none is found. */

import { byId, make } from "./dom.js";
import { say, text } from "./strings.js";

const WIDEST = 720;
const SMALLEST_BOX = 16;
const KEY_STEP = 0.02;
/** The share of the picture above a face that its number needs. */
const ROOM_ABOVE = 0.12;

/**
 * What the server says of a picture whose face must be chosen.
 * @typedef {object} Faces
 * @property {{number: number, box: [number, number, number, number]}[]} faces boxes: left, top, right, bottom
 * @property {{width: number, height: number, rotation: number}} picture
 */

/** @typedef {{x: number, y: number, width: number, height: number}} DrawnBox in shares of the picture */

/** The place below the portraits where a face is chosen. */
export class FaceChoice {
  /** Counted up when another picture is shown, or none. */
  #shown = 0;

  constructor() {
    this.place = byId("face-choice");
  }

  hide() {
    this.#shown++;
    this.place.hidden = true;
    this.place.replaceChildren();
  }

  /**
   * Let a person choose. Calls `onChoose` with what is asked of the server: `face` or `face_box`.
   * @param {Blob} picture as it was sent
   * @param {Faces} found
   * @param {(query: Record<string, string>) => void} onChoose
   */
  async show(picture, found, onChoose) {
    this.hide();
    const shown = this.#shown;
    const canvas = await drawUpright(picture, found.picture);
    if (shown !== this.#shown) return;
    const frame = make("div", { class: "face-picture" }, canvas);
    const choose = (/** @type {Record<string, string>} */ query) => {
      this.hide();
      onChoose(query);
    };
    const several = found.faces.length > 0;
    this.place.append(make("p", { class: "hint" }, several ? text.chooseFace : text.drawFace), frame);
    if (several) outline(frame, found, choose);
    else this.#offerBox(frame, canvas, found.picture, choose);
    this.place.hidden = false;
    this.place.scrollIntoView({ block: "nearest" });
  }

  /**
   * @param {HTMLElement} frame
   * @param {HTMLCanvasElement} canvas
   * @param {{width: number, height: number}} size of the picture in the server's pixels
   * @param {(query: Record<string, string>) => void} choose
   */
  #offerBox(frame, canvas, size, choose) {
    const use = make("button", { type: "button", class: "small", disabled: true }, text.useBox);
    /** @type {DrawnBox | null} */
    let drawn = null;
    drawBox(frame, canvas, (box) => {
      drawn = box;
      use.disabled = Math.min(box.width * size.width, box.height * size.height) < SMALLEST_BOX;
    });
    use.onclick = () => {
      if (drawn === null) return;
      const { x, y, width, height } = drawn;
      const pixels = [x * size.width, y * size.height, width * size.width, height * size.height];
      choose({ face_box: pixels.map((side) => side.toFixed(0)).join(",") });
    };
    this.place.append(use);
  }
}

/**
 * A button around each face.
 * @param {HTMLElement} frame
 * @param {Faces} found
 * @param {(query: Record<string, string>) => void} choose
 */
function outline(frame, { faces, picture }, choose) {
  for (const { number, box } of faces) {
    const [left, top, right, bottom] = box;
    const button = make("button", { type: "button", class: "face" }, make("span", {}, String(number)));
    button.setAttribute("aria-label", say.faceNumber(number, faces.length));
    place(button, {
      x: left / picture.width,
      y: top / picture.height,
      width: (right - left) / picture.width,
      height: (bottom - top) / picture.height,
    });
    button.classList.toggle("high", top < ROOM_ABOVE * picture.height);
    button.onclick = () => choose({ face: String(number) });
    frame.append(button);
  }
}

/**
 * Let a box be drawn by mouse, touch, pen, or keys. Calls `onDrawn` with it whenever it has changed.
 * @param {HTMLElement} frame
 * @param {HTMLCanvasElement} canvas
 * @param {(box: DrawnBox) => void} onDrawn
 */
function drawBox(frame, canvas, onDrawn) {
  const shown = make("div", { class: "face drawn", hidden: true });
  frame.append(shown);
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-label", text.drawFaceKeys);
  /** @type {DrawnBox} */
  let box = { x: 0.3, y: 0.2, width: 0.4, height: 0.4 };
  /** @type {{x: number, y: number} | null} */
  let start = null;
  const set = (/** @type {DrawnBox} */ next) => {
    box = next;
    place(shown, box);
    shown.hidden = false;
    onDrawn(box);
  };
  const at = (/** @type {PointerEvent} */ event) => {
    const bounds = canvas.getBoundingClientRect();
    return {
      x: clamp((event.clientX - bounds.left) / bounds.width),
      y: clamp((event.clientY - bounds.top) / bounds.height),
    };
  };
  canvas.onpointerdown = (event) => {
    if (!event.isPrimary || event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    start = at(event);
  };
  canvas.onpointermove = (event) => {
    if (start === null || !event.isPrimary) return;
    const end = at(event);
    set({
      x: Math.min(start.x, end.x),
      y: Math.min(start.y, end.y),
      width: Math.abs(end.x - start.x),
      height: Math.abs(end.y - start.y),
    });
  };
  canvas.onpointerup = canvas.onpointercancel = () => void (start = null);
  canvas.onkeydown = (event) => {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const step = steps[/** @type {keyof typeof steps} */ (event.key)];
    if (!step) return;
    event.preventDefault();
    const [across, down] = step.map((direction) => direction * KEY_STEP);
    if (shown.hidden) set(box);
    else if (event.shiftKey) {
      const width = Math.min(Math.max(box.width + across, KEY_STEP), 1 - box.x);
      set({ ...box, width, height: Math.min(Math.max(box.height + down, KEY_STEP), 1 - box.y) });
    } else {
      const x = Math.min(Math.max(box.x + across, 0), 1 - box.width);
      set({ ...box, x, y: Math.min(Math.max(box.y + down, 0), 1 - box.height) });
    }
  };
}

/**
 * The picture, turned as the server has turned it.
 * @param {Blob} picture
 * @param {{width: number, height: number, rotation: number}} size
 */
async function drawUpright(picture, { width, height, rotation }) {
  const scale = Math.min(1, WIDEST / Math.max(width, height));
  const canvas = make("canvas", { width: Math.round(width * scale), height: Math.round(height * scale) });
  const bitmap = await createImageBitmap(picture).catch(() => null); // few browsers show HEIC
  const brush = canvas.getContext("2d");
  if (bitmap && brush) {
    const [across, down] = rotation % 180 === 0 ? [canvas.width, canvas.height] : [canvas.height, canvas.width];
    brush.translate(canvas.width / 2, canvas.height / 2);
    brush.rotate((rotation * Math.PI) / 180);
    brush.drawImage(bitmap, -across / 2, -down / 2, across, down);
    bitmap.close();
  }
  return canvas;
}

/**
 * @param {HTMLElement} element
 * @param {DrawnBox} box
 */
function place(element, { x, y, width, height }) {
  Object.assign(element.style, {
    left: `${100 * x}%`,
    top: `${100 * y}%`,
    width: `${100 * width}%`,
    height: `${100 * height}%`,
  });
}

/** @param {number} share */
function clamp(share) {
  return Math.min(Math.max(share, 0), 1);
}

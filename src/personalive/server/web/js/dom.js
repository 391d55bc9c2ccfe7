/** @file Make and find elements, and fill the texts into the HTML. */

import { text } from "./strings.js";

const SPRITE = "/assets/icons.svg";
const SVG = "http://www.w3.org/2000/svg";

/**
 * The element of that id.
 * @param {string} id
 * @returns {HTMLElement}
 */
export function byId(id) {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`There is no element #${id}.`);
  return found;
}

/**
 * A new element. Properties are set as such; `class` and names with a dash as attributes.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, unknown>} [properties]
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class" || name.includes("-")) element.setAttribute(name, String(value));
    else Reflect.set(element, name, value);
  }
  element.append(...children);
  return element;
}

/**
 * A symbol of the sprite.
 * @param {string} name
 */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `${SPRITE}#${name}`);
  svg.append(use);
  return svg;
}

/**
 * Show another symbol in an element that has one.
 * @param {Element} element
 * @param {string} name
 */
export function changeIcon(element, name) {
  element.querySelector("use")?.setAttribute("href", `${SPRITE}#${name}`);
}

/**
 * Fill in the texts and symbols that the HTML names.
 * @param {ParentNode} root
 */
export function fill(root) {
  const texts = /** @type {Record<string, any>} */ (text);
  for (const element of root.querySelectorAll("[data-icon]")) {
    element.prepend(icon(element.getAttribute("data-icon") ?? ""));
  }
  for (const element of root.querySelectorAll("[data-text]")) {
    element.append(texts[element.getAttribute("data-text") ?? ""]);
  }
  for (const element of root.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", texts[element.getAttribute("data-label") ?? ""]);
  }
  for (const element of root.querySelectorAll("[data-alt]")) {
    element.setAttribute("alt", texts[element.getAttribute("data-alt") ?? ""]);
  }
  for (const element of root.querySelectorAll("[data-hint]")) {
    element.setAttribute("title", texts[element.getAttribute("data-hint") ?? ""]);
  }
}

/**
 * Show a sentence that says what is wrong, with a remedy if there is one; hide it for null.
 * @param {HTMLElement} place with role="alert"
 * @param {string | null} sentence
 * @param {{label: string, act: () => void}} [remedy]
 */
export function complain(place, sentence, remedy) {
  place.hidden = sentence === null;
  place.replaceChildren(sentence ?? "");
  if (sentence !== null && remedy) {
    place.append(" ", make("button", { type: "button", class: "link", onclick: remedy.act }, remedy.label));
  }
}

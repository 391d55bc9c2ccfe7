/** @file Controls made from a JSON schema: sliders, choices, numbers, switches. */

import { make } from "./dom.js";
import { parameters as words } from "./strings.js";

const FEW = 4;
const MANY_STEPS = 64;

/**
 * A property of the schema, as pydantic writes it.
 * @typedef {object} Property
 * @property {string} [title]
 * @property {string} [description]
 * @property {string} [type]
 * @property {unknown} [default]
 * @property {string[]} [enum]
 * @property {string[]} [examples] of a text: then one of these is chosen
 * @property {number} [minimum]
 * @property {number} [maximum]
 * @property {number} [multipleOf]
 * @property {Property[]} [anyOf]
 */

/**
 * @typedef {object} Control
 * @property {HTMLElement} element
 * @property {(value: unknown) => void} show
 */

let count = 0;

/** A form over the properties of a schema. Reports each change by `onChange(name, value)`. */
export class SchemaForm {
  /** @type {Map<string, Control>} */ #controls = new Map();
  /** @type {Record<string, unknown>} */ values = {};

  /**
   * @param {{properties?: Record<string, Property>}} schema
   * @param {(name: string, value: unknown) => void} onChange
   */
  constructor(schema, onChange) {
    this.properties = schema.properties ?? {};
    this.defaults = Object.fromEntries(
      Object.entries(this.properties).map(([name, property]) => [name, property.default ?? null]),
    );
    this.onChange = onChange;
    for (const [name, property] of Object.entries(this.properties)) {
      this.#controls.set(name, control(name, property, (value) => this.#set(name, value)));
    }
    this.show({});
  }

  /**
   * The controls of these names, in that order; those that the schema lacks are left out.
   * @param {string[]} names
   * @returns {HTMLElement[]}
   */
  elements(names) {
    return names.flatMap((name) => this.#controls.get(name)?.element ?? []);
  }

  /** The names of all properties. */
  get names() {
    return [...this.#controls.keys()];
  }

  /**
   * Show these values, and defaults elsewhere, without calling `onChange`.
   * @param {Record<string, unknown>} given
   */
  show(given) {
    this.values = { ...this.defaults, ...given };
    for (const [name, { show }] of this.#controls) show(this.values[name]);
  }

  /**
   * The values that differ from others.
   * @param {Record<string, unknown>} [from]
   */
  changed(from = this.defaults) {
    return Object.fromEntries(Object.entries(this.values).filter(([name, value]) => value !== from[name]));
  }

  /**
   * @param {string} name
   * @param {unknown} value
   */
  #set(name, value) {
    this.values[name] = value;
    this.onChange(name, value);
  }
}

/**
 * @param {string} name
 * @param {Property} given
 * @param {(value: unknown) => void} set
 * @returns {Control}
 */
function control(name, given, set) {
  const property = { ...given, ...given.anyOf?.find((option) => option.type !== "null") };
  const number = property.type === "number" || property.type === "integer";
  if (property.enum) return choice(name, property, property.enum, set);
  if (property.type === "string" && property.examples) return choice(name, property, property.examples, set);
  if (property.type === "boolean") return toggle(name, property, set);
  if (number && property.minimum !== undefined && property.maximum !== undefined) {
    const step = property.multipleOf ?? (property.type === "integer" ? 1 : 0.05);
    if ((property.maximum - property.minimum) / step <= MANY_STEPS) return slider(name, property, step, set);
  }
  return number ? entry(name, property, set) : line(name, property, set);
}

/**
 * @param {string} name
 * @param {Property} property
 */
function caption(name, property) {
  return words[name]?.label ?? property.title ?? name;
}

/**
 * A row: its name, its control, and its description on demand.
 * @param {string} kind
 * @param {string} name
 * @param {Property} property
 * @param {HTMLInputElement | HTMLSelectElement} input
 * @param {...HTMLElement} beside
 */
function row(kind, name, property, input, ...beside) {
  input.id = `field-${name}-${count++}`;
  input.name = name;
  const label = make("label", { htmlFor: input.id, title: property.description ?? "" }, caption(name, property));
  const element = make("div", { class: `field ${kind}` }, label, ...beside, input);
  const hint = words[name]?.hint;
  if (hint) element.append(make("p", { class: "hint" }, hint));
  if (property.description) {
    const described = make("span", { class: "unseen", id: `${input.id}-about` }, property.description);
    input.setAttribute("aria-describedby", described.id);
    element.append(described);
  }
  return element;
}

/**
 * @param {string} name
 * @param {Property} property
 * @param {number} step
 * @param {(value: unknown) => void} set
 * @returns {Control}
 */
function slider(name, property, step, set) {
  const { minimum: min = 0, maximum: max = 1 } = property;
  const input = make("input", { type: "range", min, max, step });
  const shown = make("output", { class: "value" });
  const digits = step < 1 ? 2 : 0;
  const paint = () => {
    shown.textContent = Number(input.value).toFixed(digits);
    input.style.setProperty("--filled", `${(100 * (Number(input.value) - min)) / (max - min)}%`);
  };
  input.oninput = () => {
    paint();
    set(Number(input.value));
  };
  const element = row("slider", name, property, input, shown);
  shown.htmlFor.add(input.id);
  return {
    element,
    show: (value) => {
      input.value = String(value);
      paint();
    },
  };
}

/**
 * @param {string} name
 * @param {Property} property
 * @param {string[]} options
 * @param {(value: unknown) => void} set
 * @returns {Control}
 */
function choice(name, property, options, set) {
  const called = (/** @type {string} */ option) => words[name]?.options?.[option] ?? option;
  if (options.length > FEW) {
    const input = make("select", {}, ...options.map((value) => make("option", { value }, called(value))));
    input.onchange = () => set(input.value);
    return { element: row("pick", name, property, input), show: (value) => void (input.value = String(value)) };
  }
  const group = `choice-${name}-${count++}`;
  const inputs = options.map((value) => {
    const input = make("input", { type: "radio", name: group, value, class: "unseen" });
    input.onchange = () => set(value);
    return input;
  });
  const labels = inputs.map((input) => make("label", {}, input, make("span", {}, called(input.value))));
  const legend = make("legend", { title: property.description ?? "" }, caption(name, property));
  const element = make("fieldset", { class: "field choice" }, legend, make("div", { class: "segments" }, ...labels));
  const hint = words[name]?.hint;
  if (hint) element.append(make("p", { class: "hint" }, hint));
  return {
    element,
    show: (value) => {
      for (const input of inputs) input.checked = input.value === value;
    },
  };
}

/**
 * @param {string} name
 * @param {Property} property
 * @param {(value: unknown) => void} set
 * @returns {Control}
 */
function toggle(name, property, set) {
  const input = make("input", { type: "checkbox" });
  input.onchange = () => set(input.checked);
  return { element: row("toggle", name, property, input), show: (value) => void (input.checked = value === true) };
}

/**
 * @param {string} name
 * @param {Property} property
 * @param {(value: unknown) => void} set
 * @returns {Control}
 */
function entry(name, property, set) {
  const max = Math.min(property.maximum ?? Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER);
  const step = property.multipleOf ?? (property.type === "integer" ? 1 : "any");
  const input = make("input", { type: "number", min: property.minimum ?? "", max, step, required: true });
  input.onchange = () => {
    if (input.checkValidity()) set(Number(input.value));
    else input.reportValidity();
  };
  return { element: row("entry", name, property, input), show: (value) => void (input.value = String(value)) };
}

/**
 * @param {string} name
 * @param {Property} property
 * @param {(value: unknown) => void} set
 * @returns {Control}
 */
function line(name, property, set) {
  const input = make("input", { type: "text", spellcheck: false });
  input.onchange = () => set(input.value === "" ? null : input.value);
  return { element: row("entry", name, property, input), show: (value) => void (input.value = String(value ?? "")) };
}

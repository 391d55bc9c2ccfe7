/** @file The API's own page: its description from the server, in a viewer that comes with the server too. */

import { Api, ApiError } from "./api.js";
import { byId, fill } from "./dom.js";
import { askForKey, readKey } from "./key.js";

fill(document);
const api = new Api(readKey, askForKey);

try {
  const spec = await api.get("/openapi.json");
  const viewer = /** @type {(options: object) => void} */ (Reflect.get(window, "SwaggerUIBundle"));
  viewer({ spec, domNode: byId("api"), deepLinking: true, validatorUrl: null, requestInterceptor: withKey });
} catch (error) {
  if (!(error instanceof ApiError)) throw error;
  byId("told").textContent = error.message;
}

/** @param {{url: string, headers: Record<string, string>}} request */
function withKey(request) {
  const key = readKey();
  if (key !== null) request.headers.Authorization = `Bearer ${key}`;
  return request;
}

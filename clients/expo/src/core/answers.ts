/**
 * What tells an answer of Fastbell from one of whatever stands in between, which may well say 200: a portal of a hotel, a
 * proxy, another server under the same address. Answers with a body are known by fields of ours, empty ones by a header.
 */

import type { components } from "./schema.d.ts";

type Schemas = components["schemas"];

/** Answers that the phone acts on. */
export interface Answers {
  readonly token: Schemas["ShownToken"];
  readonly page: Schemas["SyncOut"];
  readonly item: Schemas["ItemOut"];
  readonly fast: Schemas["SessionOut"];
  readonly fasts: Schemas["SessionList"];
  readonly preferences: Schemas["PreferencesOut"];
  readonly link: Schemas["LinkOut"];
}

/** Whether a body is one of ours. */
export type IsOurs = (body: unknown) => boolean;

const MARK = "fastbell"; // a header of each answer of the API

const item = having<Answers["item"]>({ seq: "number", kind: "string", id: "string" });
const fast = having<Answers["fast"]>({ id: "string", status: "string" });
const page = having<Answers["page"]>({ next_cursor: "number", has_more: "boolean" });

export const ours: { readonly [K in keyof Answers]: IsOurs } & { readonly nothing: IsOurs } = {
  token: having<Answers["token"]>({ installation_id: "string" }),
  page: (body) => page(body) && isListOf(body, item),
  item,
  fast,
  fasts: (body) => isListOf(body, fast),
  preferences: having<Answers["preferences"]>({ rev: "number", reminders: "boolean", messages: "boolean" }),
  link: having<Answers["link"]>({ url: "string" }),
  nothing: () => false, // a 204 and nothing else
};

/** Whether a 2xx is Fastbell's own. */
export function isOurAnswer(response: Response, body: unknown, isOurs: IsOurs): boolean {
  return response.status === 204 ? response.headers.has(MARK) : isOurs(body);
}

export function isObject(body: unknown): body is Readonly<Record<string, unknown>> {
  return typeof body === "object" && body !== null;
}

function having<T>(fields: { readonly [K in keyof T]?: "string" | "number" | "boolean" }): IsOurs {
  return (body) => isObject(body) && Object.entries(fields).every(([name, type]) => typeof body[name] === type);
}

function isListOf(body: unknown, isOne: IsOurs): boolean {
  const items = isObject(body) ? body["items"] : null;
  return Array.isArray(items) && items.every(isOne);
}

/** The README's walk-through with a generated TypeScript client: walk_through.ts BASE_URL API_KEY DEVICE_TOKEN. */

import createClient from "openapi-fetch";

import type { paths } from "./schema.d.ts";

const ANSWER_WITHIN = 30_000; // milliseconds
const [baseUrl, apiKey, deviceToken] = process.argv.slice(2);
if (baseUrl === undefined || apiKey === undefined || deviceToken === undefined) {
  throw new Error("walk_through.ts BASE_URL API_KEY DEVICE_TOKEN");
}
const client = createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${apiKey}` } });
const inSeconds = (seconds: number): string => new Date(Date.now() + seconds * 1000).toISOString();

const user_id = `carol-${crypto.randomUUID()}`;
const phone = { params: { path: { user_id, installation_id: crypto.randomUUID() } } };
await client.PUT("/v1/users/{user_id}/device-tokens/{installation_id}", {
  ...phone,
  body: { provider: "apns", token: deviceToken, environment: "production", locale: "de-AT" },
});

const fast = { params: { path: { user_id, session_id: crypto.randomUUID() } } };
await client.PUT("/v1/users/{user_id}/fasting-sessions/{session_id}", {
  ...fast,
  body: { ends_at: inSeconds(57_600), reminder_minutes: [1] },
});
await client.PATCH("/v1/users/{user_id}/fasting-sessions/{session_id}", { ...fast, body: { ends_at: inSeconds(62) } });

const begunAt = Date.now();
let state: string | undefined = "scheduled";
while (state === "scheduled" || state === "due") {
  const { data, error } = await client.GET("/v1/users/{user_id}/fasting-sessions/{session_id}", fast);
  if (data === undefined || Date.now() - begunAt > ANSWER_WITHIN) {
    throw new Error(error === undefined ? `still ${state}` : `${error.type}: ${error.detail}`);
  }
  state = data.reminders[0]?.state;
  await new Promise((resolve) => setTimeout(resolve, 100));
}

const ended = await client.POST("/v1/users/{user_id}/fasting-sessions/{session_id}/end", fast);
if (ended.data?.status !== "broken") {
  throw new Error(`not ended: ${ended.error?.type}`);
}
const accepted: string[] = [];
for (let after = 0, hasMore = true; hasMore; ) {
  const { data } = await client.GET("/v1/events", { params: { query: { after, types: ["push.accepted"], limit: 500 } } });
  accepted.push(...(data?.items ?? []).filter((event) => event.user_id === user_id).map((event) => event.type));
  after = data?.next_cursor ?? after;
  hasMore = data?.has_more ?? false;
}
await client.DELETE("/v1/users/{user_id}/device-tokens/{installation_id}", phone);
console.log(state, ...accepted);

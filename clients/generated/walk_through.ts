/** The README's walk-through with a generated TypeScript client: walk_through.ts BASE_URL BEARER_TOKEN DEVICE_TOKEN. */

import createClient from "openapi-fetch";

import type { paths } from "./schema.d.ts";

const ANSWER_WITHIN = 30_000; // milliseconds
const [baseUrl, bearer, deviceToken] = process.argv.slice(2);
if (baseUrl === undefined || bearer === undefined || deviceToken === undefined) {
  throw new Error("walk_through.ts BASE_URL BEARER_TOKEN DEVICE_TOKEN");
}
const client = createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${bearer}` } });
const inSeconds = (seconds: number): string => new Date(Date.now() + seconds * 1000).toISOString();

const installation = { params: { path: { installation_id: crypto.randomUUID() } } };
await client.PUT("/v1/device-tokens/{installation_id}", {
  ...installation,
  body: { provider: "apns", token: deviceToken, environment: "production", locale: "de-AT" },
});

const session = { params: { path: { session_id: crypto.randomUUID() } } };
await client.PUT("/v1/fasting-sessions/{session_id}", {
  ...session,
  body: { ends_at: inSeconds(57_600), reminder_minutes: [1] },
});
await client.PATCH("/v1/fasting-sessions/{session_id}", { ...session, body: { ends_at: inSeconds(62) } });

const startedAt = Date.now();
let state: string | undefined = "scheduled";
while (state === "scheduled" || state === "due") {
  const { data, error } = await client.GET("/v1/fasting-sessions/{session_id}", session);
  if (data === undefined || Date.now() - startedAt > ANSWER_WITHIN) {
    throw new Error(error === undefined ? `still ${state}` : `${error.type}: ${error.detail}`);
  }
  state = data.reminders[0]?.state;
  await new Promise((resolve) => setTimeout(resolve, 100));
}

const ended = await client.POST("/v1/fasting-sessions/{session_id}/end", session);
if (ended.data?.status !== "broken") {
  throw new Error(`not ended: ${ended.error?.type}`);
}
await client.DELETE("/v1/device-tokens/{installation_id}", installation);
console.log(state);

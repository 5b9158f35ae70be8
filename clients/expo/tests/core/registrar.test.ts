/** Registrations and sign-outs on a real socket, with others than Fastbell answering. */

import assert from "node:assert/strict";
import type { ServerResponse } from "node:http";
import { type TestContext, test } from "node:test";

import { createApi } from "../../src/core/api.ts";
import { createRegistrar } from "../../src/core/registrar.ts";
import type { Registration } from "../../src/core/registration.ts";
import { Backend, json, nothing, problem } from "./backend.ts";

const INSTALLATION = "5f0c3c0e-6d5b-4c6c-9d59-3f0f0a4f7a01";
const REGISTRATION: Registration = {
  userId: "alice",
  installationId: INSTALLATION,
  token: { provider: "fcm", token: "t", environment: "production" },
  facts: { permission: "granted", locale: null, timeZone: null, appVersion: null, osVersion: null, publicKey: null },
  signOutDigest: "0".repeat(64),
  sequence: 1,
  formerTicket: null,
};
const DEBT = { installationId: INSTALLATION, ticket: "t".repeat(32), since: 0 };

const NEVER = new Promise<never>(() => undefined);

type Answer = (response: ServerResponse) => void;

const ours =
  (status: number, code: string): Answer =>
  (response) =>
    problem(response, status, { type: `urn:fastbell:problem:${code}`, detail: "No." });

const page =
  (status: number): Answer =>
  (response) =>
    response.writeHead(status, { "content-type": "text/html" }).end("<html>default backend</html>");

async function backend(t: TestContext): Promise<Backend> {
  const started = await new Backend().start();
  t.after(() => started.stop());
  return started;
}

test("a sign-out is paid by a 204, or given up at Fastbell's own 422; what others answer on the way leaves it owed", async (t) => {
  const server = await backend(t);
  const registrar = createRegistrar({ api: server.api(), appId: null, signedIn: () => null });
  const owed = { retryAfter: 0 };
  for (const [what, answer, expected] of [
    ["our 204", nothing, true],
    ["another's 204", (response) => response.writeHead(204).end(), owed],
    ["our 422", ours(422, "invalid-request"), true],
    ["our 404, of a server before sign-outs", ours(404, "not-found"), owed],
    ["our 413", ours(413, "too-large"), owed],
    ["our 429", (response) => problem(response.setHeader("retry-after", "7"), 429, {}), { retryAfter: 7_000 }],
    ["a page", page(200), owed],
    ["another's JSON", (response) => json(response, 200, {}), owed],
    ["nothing", (response) => response.writeHead(200, { "content-length": "0" }).end(), owed],
    ...[400, 401, 403, 404, 408, 413, 422, 502].map((status) => [`a proxy's ${status}`, page(status), owed] as const),
    ["another's problem", (response) => problem(response, 422, { type: "https://proxy.example/waf", detail: "No." }), owed],
  ] satisfies (readonly [string, Answer, unknown])[]) {
    server.trouble = (_, response) => (answer(response), true);
    assert.deepEqual(await registrar.signOut(DEBT), expected, what);
  }
});

test("a sign-out needs no bearer token: none is asked for, and none is sent", async (t) => {
  const server = await backend(t);
  server.trouble = (_, response) => (nothing(response), true);
  for (const bearer of [async () => "bob's", () => Promise.reject(new Error("nobody is signed in")), () => NEVER]) {
    const registrar = createRegistrar({ api: server.api(bearer), appId: null, signedIn: () => null });
    assert.equal(await registrar.signOut(DEBT), true);
  }
  assert.deepEqual(server.bearers, ["", "", ""]);
});

test("a call whose bearer token never comes ends with its patience, at the first try and after a 401", async (t) => {
  const server = await backend(t);
  server.trouble = (_, response) => (ours(401, "not-signed-in")(response), true);
  const lost = { is: "lost", reason: "the app gave no bearer token", retryAfter: 0 };
  let given = 0;
  for (const [bearer, heard] of [[() => NEVER, 0], [() => (given++ === 0 ? Promise.resolve("old") : NEVER), 1]] as const) {
    const registrar = createRegistrar({ api: server.api(bearer, 50), appId: null, signedIn: () => "alice" });
    assert.deepEqual(await registrar.put(REGISTRATION), lost);
    assert.equal(server.bearers.length, heard);
  }
});

test("an answer that breaks off, or never ends, ends with its patience, though on iOS Expo's fetch gives no word of it", async (t) => {
  const server = await backend(t);
  const fetchOfIos = async (input: RequestInfo | URL) => {
    const response = await fetch(input);
    const text = response.text().catch(() => NEVER);
    return Object.assign(response, { text: () => text, json: async () => JSON.parse(await text) });
  };
  const registrarOf = (patience: number) => {
    const api = createApi({ baseUrl: server.url, bearer: async () => "bearer", patience, fetch: fetchOfIos });
    return createRegistrar({ api, appId: null, signedIn: () => "alice" });
  };
  const hasty = registrarOf(50);
  for (const status of [200, 409]) {
    server.trouble = (_, response) => {
      response.writeHead(status, { "content-type": "application/json" });
      return response.write('{"installation_id": ') || true; // and no more
    };
    assert.equal((await hasty.put(REGISTRATION)).is, "lost");
    assert.deepEqual(await hasty.signOut(DEBT), { retryAfter: 0 });
  }
  server.trouble = (_, response) => (json(response, 200, { installation_id: INSTALLATION }), true);
  assert.deepEqual(await registrarOf(30_000).put(REGISTRATION), { is: "taken" });
});

test("a registration is moved or given up for Fastbell's own words alone; a proxy's are tried again", async (t) => {
  const server = await backend(t);
  const registrar = createRegistrar({ api: server.api(), appId: null, signedIn: () => "alice" });
  for (const [what, answer, expected] of [
    ["our 404", ours(404, "not-found"), "not_ours"],
    ["our 409", ours(409, "installation-taken"), "not_ours"],
    ["our 409 about the ticket", ours(409, "ticket-spent"), "spent"],
    ["our 409 about the order", ours(409, "registration-outdated"), "outdated"],
    ["our other 409", ours(409, "being-erased"), "lost"],
    ["our 403", ours(403, "not-allowed"), "refused"],
    ["our 422", ours(422, "invalid-request"), "refused"],
    ...[400, 403, 404, 408, 409, 413, 422, 503].map((status) => [`a proxy's ${status}`, page(status), "lost"] as const),
    ["our 200", (response) => json(response, 200, { installation_id: INSTALLATION }), "taken"],
    ["a page's 200", page(200), "lost"],
    ["another's JSON", (response) => json(response, 200, {}), "lost"],
    ["null", (response) => response.writeHead(200, { "content-type": "application/json" }).end("null"), "lost"],
    ["nothing", (response) => response.writeHead(200, { "content-length": "0" }).end(), "lost"],
    ["another's 204", (response) => response.writeHead(204).end(), "lost"],
    ["a way elsewhere", (response) => response.writeHead(302, { location: "/portal" }).end(), "lost"],
  ] satisfies (readonly [string, Answer, string])[]) {
    server.trouble = (_, response) => (answer(response), true);
    assert.equal((await registrar.put(REGISTRATION)).is, expected, what);
  }
});

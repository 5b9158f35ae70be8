/** Sync, stream and openings against a backend on a real socket that misbehaves. */

import assert from "node:assert/strict";
import type { ServerResponse } from "node:http";
import { type TestContext, test } from "node:test";

import { createApi } from "../../src/core/api.ts";
import { Log } from "../../src/core/log.ts";
import { Openings } from "../../src/core/openings.ts";
import type { Clock, Random } from "../../src/core/ports.ts";
import { Stream } from "../../src/core/stream.ts";
import { type LogItem, MemoryStore, Sync } from "../../src/core/sync.ts";
import { Backend, problem } from "./backend.ts";

const INSTALLATION = "5f0c3c0e-6d5b-4c6c-9d59-3f0f0a4f7a01";

const clock: Clock = {
  now: () => Date.now(),
  after: (milliseconds, call) => {
    const timer = setTimeout(call, milliseconds < 20_000 ? Math.min(milliseconds, 20) : milliseconds); // back-off in haste
    return () => clearTimeout(timer);
  },
};
const random: Random = { uuid: () => INSTALLATION, ticket: () => "t".repeat(32), chance: () => 0 };

async function backend(t: TestContext): Promise<Backend> {
  const started = await new Backend().start();
  t.after(() => started.stop());
  return started;
}

function syncOf(server: Backend, store = new MemoryStore(), bearer?: () => Promise<string | null>) {
  const told: string[] = [];
  const items: LogItem[] = [];
  const log = new Log(store);
  const sync = new Sync({
    api: server.api(bearer),
    log,
    clock,
    installationId: () => INSTALLATION,
    onItems: (found) => items.push(...found),
    onGap: () => told.push("gap"),
    onRefreshRequired: () => told.push("refresh"),
    onNotRegistered: () => told.push("not registered"),
  });
  return { sync, store, log, told, items };
}

async function until(isTrue: () => boolean): Promise<void> {
  while (!isTrue()) {
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

test("a long log is read page by page, stored once, and acknowledged to its end", async (t) => {
  const server = await backend(t);
  server.write(...Array.from({ length: 250 }, (_, number) => `body ${number}`));
  const { sync, store, items } = syncOf(server);

  assert.equal(await sync.run(), null);

  assert.equal(store.items.size, 250);
  assert.equal(items.length, 250);
  assert.deepEqual(server.acknowledged, [0, 100, 200, 250]);
});

test("any number of triggers while one run is under way make one more", async (t) => {
  const server = await backend(t);
  const { sync } = syncOf(server);

  await Promise.all(Array.from({ length: 50 }, () => sync.run()));

  assert.equal(server.acknowledged.length, 2);
});

test("a log that begins later is told as a gap, and read from there", async (t) => {
  const server = await backend(t);
  server.horizon = 40;
  server.write("one", "two");
  const { sync, store, told } = syncOf(server);
  await store.apply([], 7);

  assert.equal(await sync.run(), null);

  assert.deepEqual(told, ["gap"]);
  assert.deepEqual([...store.items.keys()], [41, 42]);
});

test("a cursor of another server starts from nothing", async (t) => {
  const server = await backend(t);
  server.write("one");
  server.trouble = (request, response) => {
    const isFuture = request.url!.includes("after=99");
    if (isFuture) {
      problem(response, 422, { type: "urn:fastbell:problem:invalid-request", field: "after", detail: "future" });
    }
    return isFuture;
  };
  const { sync, store } = syncOf(server);
  await store.apply([], 99);

  assert.equal(await sync.run(), null);

  assert.deepEqual([...store.items.keys()], [1]);
});

test("a proxy's 404, 409 and 410 neither end the registration nor the log", async (t) => {
  const server = await backend(t);
  const { sync, store, told } = syncOf(server);
  await store.apply([], 7);
  for (const status of [404, 409, 410, 422]) {
    server.trouble = (_, response) => (response.writeHead(status).end("default backend"), true);
    assert.deepEqual(await sync.run(), { is: "unavailable", status, retryAfter: 0 });
  }

  assert.deepEqual(told, []);
  assert.equal(await store.cursor(), 7);
});

test("a 401 asks the app for a bearer token once more, and no further", async (t) => {
  const server = await backend(t);
  let given = 0;
  server.trouble = (request, response) => {
    const isOld = request.headers.authorization !== "Bearer 2";
    if (isOld) {
      problem(response, 401, { type: "urn:fastbell:problem:not-signed-in" });
    }
    return isOld;
  };
  const first = syncOf(server, new MemoryStore(), async () => String(++given));
  assert.equal(await first.sync.run(), null);
  assert.deepEqual(server.bearers, ["Bearer 1", "Bearer 2"]);

  const second = syncOf(server, new MemoryStore(), async () => "old");
  assert.deepEqual(await second.sync.run(), { is: "unauthorized" });
  assert.equal(server.bearers.length, 4);
});

test("who signs out while a page is on its way stores nothing of it", async (t) => {
  const server = await backend(t);
  server.write("alice's");
  const { sync, store, log } = syncOf(server);

  const running = sync.run();
  await log.empty();
  await running;

  assert.equal(store.items.size, 0);
});

test("a stream that is cut in the middle of an event goes on where it was, without loss or repeat", async (t) => {
  const server = await backend(t);
  server.write("one", "two", "three");
  let connections = 0;
  server.streamText = (after) => {
    const text = server.log.filter((item) => item.seq > after).map(event).join("");
    return ++connections === 1 ? text.slice(0, text.length / 2) : text; // the first ends within the second event
  };
  const store = new MemoryStore();
  const seen: number[] = [];
  const stream = new Stream({
    api: server.api(),
    baseUrl: server.url,
    clock,
    random,
    log: new Log(store),
    installationId: () => INSTALLATION,
    onItems: (items) => seen.push(...items.map(({ seq }) => seq)),
    onRefused: async () => undefined,
  });
  t.after(() => stream.close());

  stream.open();
  await until(() => seen.length >= 3);

  assert.deepEqual(seen, [1, 2, 3]);
  assert.equal(await store.cursor(), 3);
  assert.ok(connections >= 2);
});

test("a stream that is refused waits before it tries again, whatever Retry-After says", async (t) => {
  const server = await backend(t);
  for (const [said, expected] of [
    ["7", 7_000],
    ["Wed, 21 Oct 2026 07:28:00 GMT", 1_000],
    ["soon", 1_000],
    ["-5", 1_000],
    ["9999999999", 3_600_000],
  ] as const) {
    server.trouble = (_, response) => (problem(response.setHeader("retry-after", said), 503, {}), true);
    const waits: number[] = [];
    const patient: Clock = {
      now: () => 0,
      after: (milliseconds) => {
        waits.push(milliseconds);
        return () => undefined;
      },
    };
    const stream = new Stream({
      api: server.api(),
      baseUrl: server.url,
      clock: patient,
      random,
      log: new Log(new MemoryStore()),
      installationId: () => INSTALLATION,
      onItems: () => undefined,
      onRefused: async () => undefined,
    });
    stream.open();
    await until(() => waits.length === 2); // the first is for its silence
    stream.close();
    assert.equal(waits[1], expected, said);
  }
});

test("a stream of an API below a path is there, too, as its other calls are", async (t) => {
  const server = await backend(t);
  const asked: string[] = [];
  server.trouble = (request, response) => {
    asked.push(request.url!.split("?")[0]!);
    problem(response, 503, {});
    return true;
  };
  for (const path of ["", "/", "/push", "/push/"]) {
    const baseUrl = server.url + path;
    const api = createApi({ baseUrl, bearer: async () => "bearer" });
    const ends = { api, baseUrl, clock, random, log: new Log(new MemoryStore()), installationId: () => INSTALLATION };
    const stream = new Stream({ ...ends, onItems: () => undefined, onRefused: async () => undefined });
    const before = asked.length;
    stream.open();
    await until(() => asked.length > before);
    stream.close();
    await api.client.GET("/v1/notification-preferences");
    const prefix = path.startsWith("/push") ? "/push" : "";
    assert.deepEqual([asked[before], asked.at(-1)], [`${prefix}/v1/stream`, `${prefix}/v1/notification-preferences`]);
  }
});

test("one tap that is told three times navigates once and is reported once, though the first report fails", async (t) => {
  const server = await backend(t);
  let failures = 1;
  server.trouble = (_, response) => {
    const fails = failures-- > 0;
    if (fails) {
      problem(response, 503, {});
    }
    return fails;
  };
  let stored: string | null = null;
  const vault = {
    read: async () => stored,
    write: async (value: string) => {
      stored = value;
    },
  };
  const ends = { api: server.api(), vault, clock, random, links: ["fastbell://"] };
  const openings = new Openings(ends);
  await openings.belongTo("alice");
  const data = { task_id: "task-1", kind: "reminder", url: `fastbell://fasting-sessions/${INSTALLATION}` };

  await Promise.all([openings.tapped(data), openings.tapped(data)]);
  const restarted = new Openings(ends);
  await restarted.belongTo("alice");
  await restarted.tapped(data); // the system's memory of the last tap
  await until(() => server.opened.length > 0);

  assert.equal(openings.take()?.path, `/fasting-sessions/${INSTALLATION}`);
  assert.equal(openings.take(), null);
  assert.equal(restarted.take(), null);
  await until(() => JSON.parse(stored!).entries[0].isTold);
  assert.deepEqual(server.opened, ["task-1"]);

  await openings.tapped({ ...data, task_id: "task-2" });
  await openings.belongTo("bob");
  assert.equal(openings.take(), null);
});

test("an opening is told until the backend has heard it, knows no such push or calls it no push at all", async (t) => {
  const server = await backend(t);
  const ours = (status: number) => (response: ServerResponse) => problem(response, status, { type: "urn:fastbell:problem:x" });
  const page = (status: number) => (response: ServerResponse) => void response.writeHead(status).end("default backend");
  for (const [what, answer, isOver] of [
    ["our 404", ours(404), true],
    ["our 422", ours(422), true],
    ...[400, 401, 403, 408, 409, 413, 429].map((status) => [`our ${status}`, ours(status), false] as const),
    ...[400, 401, 403, 404, 409, 413, 422].map((status) => [`a proxy's ${status}`, page(status), false] as const),
  ] as const) {
    let answers = 0;
    server.opened.length = 0;
    server.trouble = (_, response) => answers++ === 0 && (answer(response), true);
    const written: string[] = [];
    const vault = { read: async () => null, write: async (value: string) => void written.push(value) };
    const openings = new Openings({ api: server.api(async () => null), vault, clock, random, links: ["fastbell://"] });
    await openings.belongTo("alice");
    await openings.tapped({ task_id: "task-1", kind: "test", url: "fastbell://test-push" });
    await until(() => JSON.parse(written.at(-1)!).entries[0].isTold);
    openings.close();
    assert.deepEqual(server.opened, isOver ? [] : ["task-1"], what);
  }
});

function event(item: LogItem): string {
  return `id: ${item.seq}\nevent: item\ndata: ${JSON.stringify(item)}\n\n`;
}

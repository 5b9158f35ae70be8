/** Who leaves leaves no log, whatever the store is doing at that moment; and who stays reads it once. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { startFastbell } from "../../src/core/fastbell.ts";
import { Log, type LogItem, MemoryStore } from "../../src/core/log.ts";
import { Disk, OPTIONS, Phone, bodiesOf, pageOf, passes, until } from "./phone.ts";

const FORGET_LIMIT = 5_000;

/** A store whose writes take until they are let through. */
class Slow extends Disk {
  waiting: (() => void)[] = [];
  isSlow = true;

  override async apply(items: readonly LogItem[], next: number): Promise<void> {
    if (this.isSlow) {
      await new Promise<void>((resolve) => this.waiting.push(resolve));
    }
    await super.apply(items, next);
  }

  letThrough(): void {
    this.isSlow = false;
    this.waiting.splice(0).forEach((resolve) => resolve());
  }
}

/** A store that takes a while for everything, and counts what overlaps. */
class Counting extends MemoryStore {
  underWay = 0;
  most = 0;

  override cursor(): Promise<number> {
    return this.#alone(() => super.cursor());
  }

  override apply(items: readonly LogItem[], next: number): Promise<void> {
    return this.#alone(() => super.apply(items, next));
  }

  override reset(next: number): Promise<void> {
    return this.#alone(() => super.reset(next));
  }

  async #alone<T>(act: () => Promise<T>): Promise<T> {
    this.underWay += 1;
    this.most = Math.max(this.most, this.underWay);
    await new Promise(setImmediate);
    this.underWay -= 1;
    return act();
  }
}

/** The same log by the stream as by sync, item by item. */
function streams(phone: Phone, length = 3): void {
  phone.way = (request, path) => {
    if (path !== "/v1/stream") {
      return null;
    }
    const { items } = pageOf(request.headers.get("authorization") ?? "", 0) as { items: LogItem[] };
    const events = items.slice(0, length).map((item) => `event: item\nid: ${item.seq}\ndata: ${JSON.stringify(item)}\n\n`);
    const body = new ReadableStream<Uint8Array>({
      async start(controller) {
        for (const event of events) {
          controller.enqueue(new TextEncoder().encode(event));
          await new Promise(setImmediate);
        }
      },
    });
    return new Response(body, { headers: { "content-type": "text/event-stream" } });
  };
}

const toForget = (phone: Phone): unknown => JSON.parse(phone.kept.get("fastbell.registration")!).toForget;

async function signedIn(phone: Phone, store: Slow) {
  const who = { is: "alice" };
  const app = await startFastbell({ ...OPTIONS, store, bearer: async () => who.is }, phone.ports());
  await app.signedIn("alice");
  await until(() => store.waiting.length > 0);
  return { app, who };
}

for (const leaves of ["signs out", "is followed by another"] as const) {
  test(`whoever ${leaves} while a page is being stored leaves nothing of it`, async () => {
    const [phone, store] = [new Phone(), new Slow()];
    streams(phone);
    const { app, who } = await signedIn(phone, store);

    const leaving = leaves === "signs out" ? app.signOut() : app.signedIn("bob");
    who.is = "bob";
    store.letThrough();
    await leaving;
    await app.signedIn("bob");
    await until(() => store.items.size === 3);
    assert.equal(await app.sync(), null);
    app.close();

    assert.deepEqual([store.bodies(), await store.cursor(), toForget(phone)], [bodiesOf("bob"), 3, []]);
  });
}

test("a page that takes longer to be stored than a person waits is removed after it, and the next one's log waits for that", async () => {
  const [phone, store] = [new Phone(), new Slow()];
  const { app, who } = await signedIn(phone, store);
  const leaving = app.signOut();
  await until(() => phone.timers.some(({ milliseconds }) => milliseconds === FORGET_LIMIT));
  passes(phone, FORGET_LIMIT);
  await leaving;
  who.is = "bob";
  await app.signedIn("bob");
  await until(() => app.push.current.is === "registered");
  assert.equal(await app.sync(), null);
  assert.deepEqual([toForget(phone), store.items.size], [["log"], 0]);

  store.letThrough(); // alice's page, and what removes it
  phone.onForeground(true); // the next try
  await until(() => store.items.size === 3 && store.bodies()[0] !== bodiesOf("alice")[0]);
  app.close();

  assert.deepEqual([store.bodies(), toForget(phone)], [bodiesOf("bob"), []]);
});

test("stream, sync, opens and sign-outs call the store for one thing at a time, and each item is told once", async () => {
  const [phone, store] = [new Phone(), new Counting()];
  streams(phone, 2);
  const app = await startFastbell({ ...OPTIONS, store }, phone.ports());
  const told: number[] = [];
  app.onItems((items) => told.push(...items.map(({ seq }) => seq)));
  await app.signedIn("alice");
  phone.onForeground(true);
  await Promise.all([app.sync(), app.sync(), until(() => store.items.size === 3)]);
  phone.onForeground(true);
  await app.sync();
  assert.deepEqual(told, [1, 2, 3]);

  await Promise.all([app.sync(), app.signOut()]);
  assert.deepEqual([store.most, store.items.size], [1, 0]);
  app.close();
});

test("what is being stored while the app leaves the front is told, for nobody reads it again", async () => {
  const [phone, store] = [new Phone(), new Slow()];
  streams(phone);
  const { way } = phone;
  phone.way = (request, path) => (path === "/v1/sync" ? new Response(null, { status: 503 }) : way(request, path));
  const app = await startFastbell({ ...OPTIONS, store }, phone.ports());
  const told: number[] = [];
  app.onItems((items) => told.push(...items.map(({ seq }) => seq)));
  await app.signedIn("alice");
  await until(() => store.waiting.length > 0);

  phone.onForeground(false);
  store.letThrough();
  await until(() => store.items.size > 0);
  await new Promise(setImmediate);
  app.close();

  assert.deepEqual(told, [...store.items.keys()]);
});

test("a sync whose store hangs keeps nobody waiting, and what it stores in the end is told", async () => {
  const [phone, store] = [new Phone(), new Slow()];
  const app = await startFastbell({ ...OPTIONS, store }, phone.ports());
  const told: number[] = [];
  app.onItems((items) => told.push(...items.map(({ seq }) => seq)));
  await app.signedIn("alice");
  await until(() => store.waiting.length > 0);
  const hangs = { is: "not_stored", detail: "the store takes too long" };

  const synced = app.sync();
  passes(phone, 10_000);
  assert.deepEqual([await synced, await app.sync()], [hangs, hangs]);
  store.letThrough();
  await until(() => told.length === 3);
  assert.equal(await app.sync(), null);
  app.close();

  assert.deepEqual(told, [1, 2, 3]);
});

test("a store that fails is a problem of the sync, not a rejection, and the same page is read again", async () => {
  const phone = new Phone();
  const store = new MemoryStore();
  for (const name of ["cursor", "apply"] as const) {
    const works = store[name] as never;
    const fails: () => Promise<never> = () => Promise.reject(new Error("database is locked"));
    store[name] = fails;
    const app = await startFastbell({ ...OPTIONS, store }, phone.ports());
    await app.signedIn("alice");
    await until(() => app.push.current.is === "registered");
    assert.deepEqual(await app.sync(), { is: "not_stored", detail: "database is locked" }, name);
    store[name] = works;
    assert.equal(await app.sync(), null);
    app.close();
    await store.reset(0);
  }
});

test("what was read of a log before it was emptied, moved or left is stored by nobody, though it comes afterwards", async () => {
  for (const ends of ["empty", "moveTo", "abandon"] as const) {
    const store = new MemoryStore();
    const log = new Log(store);
    const place = await log.place();
    assert.deepEqual(await log.store(place, [{ seq: 1 } as LogItem], 1), [{ seq: 1 }]);

    const ended = ends === "moveTo" ? log.moveTo(place, 0) : log[ends]();
    const late = log.store(place, [{ seq: 2 } as LogItem], 2);
    await ended;
    assert.equal(log.holds(place), false);
    assert.equal(await late, null);
    assert.equal(await log.store(place, [{ seq: 3 } as LogItem], 3), null);
    assert.equal(await log.moveTo(place, 7), false);
    assert.deepEqual([...store.items.keys()], ends === "abandon" ? [1] : []);

    const next = await log.place(); // the next person's
    await log.store(next, [{ seq: 1 } as LogItem], 1);
    assert.equal(await store.cursor(), 1);
  }
});

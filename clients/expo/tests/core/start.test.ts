/** The whole of the core on a phone of which one part fails. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { startFastbell } from "../../src/core/fastbell.ts";
import type { Ports } from "../../src/core/ports.ts";
import { type LogItem, MemoryStore } from "../../src/core/sync.ts";

const ID = "5f0c3c0e-6d5b-4c6c-9d59-3f0f0a4f7a01";

/** A phone with a network for registrations, whose bodies it keeps, for sign-outs, and for a log of three items. */
class Phone {
  readonly kept = new Map<string, string>();
  readonly bodies: { public_key: string | null }[] = [];
  listeners = 0;
  onTap: (data: unknown) => void = () => undefined;
  onForeground: (isActive: boolean) => void = () => undefined;
  keys = 0;
  key: () => Promise<string> = async () => `key-${this.keys}`;
  permission: () => Promise<"granted"> = async () => "granted";

  ports(): Ports {
    const listens = () => {
      this.listeners += 1;
      return () => {
        this.listeners -= 1;
      };
    };
    const { kept } = this;
    return {
      push: {
        fetchToken: async () => ({ provider: "fcm", token: "t", environment: "production" }),
        unregister: async () => undefined,
        observe: listens,
      },
      secure: {
        vault: (name) => ({ read: async () => kept.get(name) ?? null, write: async (value) => void kept.set(name, value) }),
      },
      clock: { now: () => 0, after: () => () => undefined },
      random: { uuid: () => ID, ticket: () => "t".repeat(32), chance: () => 0 },
      network: { observe: listens },
      foreground: {
        isActive: true,
        observe: (observer) => {
          this.onForeground = observer;
          return listens();
        },
      },
      system: { locale: () => null, timeZone: () => null, appVersion: () => null, osVersion: () => null, observe: listens },
      permissions: { read: () => this.permission(), ask: () => this.permission() },
      keys: {
        publicKey: () => this.key(),
        forget: async () => {
          this.keys += 1;
        },
      },
      screen: { shown: async () => [], dismiss: async () => undefined, dismissAll: async () => undefined },
      taps: {
        observe: (observer) => {
          this.onTap = observer;
          return listens();
        },
      },
      fetch: async (input, init) => {
        const request = new Request(input, init);
        const { pathname, searchParams } = new URL(request.url);
        if (pathname === "/v1/sync") {
          return Response.json(pageOf(request.headers.get("authorization") ?? "", Number(searchParams.get("after"))));
        }
        if (pathname === "/v1/sign-outs") {
          return new Response(null, { status: 204, headers: { fastbell: "1" } });
        }
        if (request.method !== "PUT") {
          throw new TypeError("no network");
        }
        this.bodies.push((await request.json()) as { public_key: string | null });
        return Response.json({ installation_id: ID });
      },
    };
  }
}

function pageOf(bearer: string, after: number): object {
  const items = [1, 2, 3].filter((seq) => seq > after).map((seq) => ({ seq, kind: "message", id: `m${seq}`, body: `${bearer}'s ${seq}` }));
  return { items, next_cursor: Math.max(3, after), has_more: false, refresh_required: false };
}

/** A log on a disk that, for a while, cannot be emptied. */
class Disk extends MemoryStore {
  emptying: () => Promise<void> = async () => undefined;

  override async reset(next: number): Promise<void> {
    await this.emptying();
    await super.reset(next);
  }

  bodies(): unknown[] {
    return [...this.items.values()].map((item: LogItem) => "body" in item && item.body);
  }
}

const OPTIONS = { baseUrl: "http://127.0.0.1:1", bearer: async () => "bearer", sealed: true };

async function until(isTrue: () => boolean): Promise<void> {
  while (!isTrue()) {
    await new Promise(setImmediate);
  }
}

test("a start that fails halfway leaves nobody listening", async () => {
  const phone = new Phone();
  const ports = phone.ports();
  const foreground = {
    isActive: true,
    observe: () => {
      throw new Error("the system is not ready");
    },
  };

  await assert.rejects(startFastbell(OPTIONS, { ...ports, foreground }), /not ready/);

  assert.equal(phone.listeners, 0);
});

test("a phone whose key cannot be read is registered without, and keeps the key that it had read", async () => {
  const phone = new Phone();
  phone.key = () => Promise.reject(new Error("locked"));
  const app = await startFastbell(OPTIONS, phone.ports());

  await app.signedIn("alice");
  await until(() => app.push.current.is === "registered");
  phone.key = async () => "key-1";
  phone.onForeground(true);
  await until(() => phone.bodies.length === 2);
  await until(() => app.push.current.is === "registered");
  phone.key = () => Promise.reject(new Error("locked"));
  phone.onForeground(true);
  await new Promise((resolve) => setTimeout(resolve, 20));
  app.close();

  assert.deepEqual(phone.bodies.map(({ public_key }) => public_key), [null, "key-1"]);
  assert.deepEqual([app.push.current.is, phone.listeners], ["registered", 0]);
});

const bodiesOf = (person: string) => [1, 2, 3].map((seq) => `Bearer ${person}'s ${seq}`);

for (const leaves of ["signs out", "is followed by another"] as const) {
  test(`whoever ${leaves} leaves no log to the next person, though the process dies before it is removed`, async () => {
    const phone = new Phone();
    const store = new Disk();
    const start = (bearer: string) => startFastbell({ ...OPTIONS, store, bearer: async () => bearer }, phone.ports());
    const alices = await start("alice");
    await alices.signedIn("alice");
    await until(() => store.items.size === 3);
    store.emptying = () => new Promise(() => undefined); // the process dies here
    void (leaves === "signs out" ? alices.signOut() : alices.signedIn("bob"));
    await until(() => !phone.kept.get("fastbell.registration")!.includes("alice"));
    alices.close();

    store.emptying = async () => undefined;
    const bobs = await start("bob");
    await bobs.signedIn("bob");
    await until(() => bobs.push.current.is === "registered");
    assert.equal(await bobs.sync(), null);
    bobs.close();

    assert.deepEqual(store.bodies(), bodiesOf("bob"));
  });
}

test("a log that cannot be emptied is nobody's until it is, and pushes come meanwhile", async () => {
  const phone = new Phone();
  const store = new Disk();
  let bearer = "alice";
  const app = await startFastbell({ ...OPTIONS, store, bearer: async () => bearer }, phone.ports());
  const told: unknown[] = [];
  await app.signedIn("alice");
  await until(() => store.items.size === 3);
  app.onItems((items) => told.push(...items.map((item) => "body" in item && item.body)));
  store.emptying = () => Promise.reject(new Error("database or disk is full"));
  await app.signOut();
  bearer = "bob";
  await app.signedIn("bob");
  await until(() => app.push.current.is === "registered");
  await app.sync();
  assert.deepEqual([store.bodies(), told], [bodiesOf("alice"), []]);

  store.emptying = async () => undefined;
  phone.onForeground(true); // the next try
  await until(() => told.length === 3);
  app.close();

  assert.deepEqual([store.bodies(), told], [bodiesOf("bob"), bodiesOf("bob")]);
});

test("the next person is registered with a key that the phone still has", async () => {
  const phone = new Phone();
  const app = await startFastbell(OPTIONS, phone.ports());
  for (const person of ["alice", "bob"]) {
    await app.signedIn(person);
    await until(() => app.push.current.is === "registered");
    assert.equal(phone.bodies.at(-1)?.public_key, await phone.key());
    await app.signOut();
  }
  app.close();
});

test("taps are of whoever is signed in last, though the app awaits nothing", async () => {
  const phone = new Phone();
  const app = await startFastbell(OPTIONS, phone.ports());
  await app.signedIn("alice");
  void app.signOut();
  await app.signedIn("bob");
  phone.onTap({ task_id: ID, kind: "test", url: "fastbell://test-push" });
  await new Promise((resolve) => setTimeout(resolve, 20));
  app.close();

  assert.equal(app.openings.take()?.path, "/test-push");
});

test("an observer of the app that throws stops nothing, and a tap that came before anybody listened is told", async (t) => {
  const errors = t.mock.method(console, "error", () => undefined);
  const throws = () => {
    throw new Error("the app's own");
  };
  const phone = new Phone();
  const store = new Disk();
  const app = await startFastbell({ ...OPTIONS, store }, phone.ports());
  app.push.subscribe(throws);
  app.onItems(throws);
  await app.signedIn("alice");
  phone.onTap({ task_id: ID, kind: "test", url: "fastbell://test-push" });
  await new Promise((resolve) => setTimeout(resolve, 20));
  const told: string[] = [];
  app.openings.subscribe(throws);
  app.openings.subscribe(({ path }) => told.push(path));
  app.close();

  assert.deepEqual([app.push.current.is, store.items.size, told], ["registered", 3, ["/test-push"]]);
  assert.ok(errors.mock.callCount() >= 3);
});

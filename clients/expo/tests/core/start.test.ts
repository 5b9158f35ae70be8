/** The whole of the core on a phone of which one part fails. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { STARTS_AT_MOST, startFastbell } from "../../src/core/fastbell.ts";
import { later } from "../../src/core/later.ts";
import { READ_LIMIT, WRITE_LIMIT } from "../../src/core/registration_store.ts";
import { Disk, ID, OPTIONS, Phone, bodiesOf, passes, until } from "./phone.ts";

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

test("secrets that can never be read again are lost after some starts: signed out, and who signs in is registered", async () => {
  const phone = new Phone();
  phone.kept.set("fastbell.registration", "what no key opens any more");
  const broken = new Set(["fastbell.registration", "fastbell.openings"]);
  phone.read = async (name) => {
    if (broken.has(name)) {
      throw new Error("DecryptException");
    }
    return phone.kept.get(name) ?? null;
  };
  phone.write = async (name, value) => {
    broken.delete(name);
    phone.kept.set(name, value);
  };
  const store = new Disk();
  await store.apply([{ seq: 1 } as never], 1); // whose log this is nobody knows any more
  const ports = phone.ports();
  let starts = 0;
  const app = later({
    clock: ports.clock,
    start: () => {
      starts += 1;
      return startFastbell({ ...OPTIONS, store, bearer: async () => "alice" }, ports);
    },
    rest: () => new Promise((resolve) => void setImmediate(resolve)),
  });

  await app.signOut();
  await app.signedIn("alice");
  await until(() => app.push.current.is === "registered" && store.items.size === 3);
  app.close();

  assert.equal(starts, STARTS_AT_MOST + 1);
  assert.deepEqual(store.bodies(), bodiesOf("alice"));
});

test("secrets that are locked are waited for, however long, and nothing of the person is removed", async () => {
  const phone = new Phone();
  const ports = phone.ports();
  const first = await startFastbell(OPTIONS, ports);
  await first.signedIn("alice");
  await until(() => first.push.current.is === "registered");
  first.close();
  const [kept, keys] = [phone.kept.get("fastbell.registration"), phone.keys];
  const { read, write } = phone;
  const refuses: () => Promise<never> = () => Promise.reject(new Error("User interaction is not allowed"));
  [phone.read, phone.write] = [refuses, refuses];

  for (let starts = 0; starts < 3 * STARTS_AT_MOST; starts += 1) {
    await assert.rejects(startFastbell(OPTIONS, ports), /not allowed/);
  }
  assert.deepEqual([phone.kept.get("fastbell.registration"), phone.keys], [kept, keys]);

  [phone.read, phone.write] = [read, write];
  const app = await startFastbell(OPTIONS, ports);
  await until(() => app.push.current.is === "registered");
  app.close();
});

test("a second Fastbell on a phone takes the place of the first, which writes and says nothing more", async () => {
  const phone = new Phone();
  const ports = phone.ports();
  const said: string[] = [];
  let bearer = "alice";
  phone.way = (request) => {
    said.push(`${request.method} ${request.headers.get("authorization")}`);
    return null;
  };
  const options = { ...OPTIONS, bearer: async () => bearer };
  const first = await startFastbell(options, ports);
  await first.signedIn("alice");
  await until(() => first.push.current.is === "registered");
  const opensFirst = phone.onForeground;
  const second = await startFastbell(options, ports);
  await second.signOut();
  bearer = "bob";
  await second.signedIn("bob");
  await until(() => second.push.current.is === "registered");
  said.length = 0;

  phone.now = 25 * 3_600_000;
  opensFirst(true);
  await first.signedIn("alice");
  assert.equal(await first.sync(), null);
  await new Promise((resolve) => setTimeout(resolve, 20));

  assert.deepEqual(said.filter((each) => each.startsWith("PUT")), []);
  assert.match(phone.kept.get("fastbell.registration") ?? "", /"userId":"bob"/);
  second.close();
});

test("what the first Fastbell tells of taps while the second begins is not written over the second's", async () => {
  const phone = new Phone();
  const ports = phone.ports();
  const { promise, resolve } = Promise.withResolvers<void>();
  const told = new Set<string>();
  phone.way = (_, path) => {
    if (!path.endsWith("/opened")) {
      return null;
    }
    told.add(path);
    return promise.then(() => new Response(null, { status: 204, headers: { fastbell: "1" } }));
  };
  const first = await startFastbell(OPTIONS, ports);
  await first.signedIn("alice");
  for (const task_id of [ID, ID.replace("5", "6")]) {
    phone.onTap({ task_id, kind: "test", url: "fastbell://test-push" });
  }
  await until(() => told.size === 1);
  const second = await startFastbell(OPTIONS, ports);
  await second.signedIn("bob");

  resolve();
  await new Promise((wait) => setTimeout(wait, 20));

  assert.match(phone.kept.get("fastbell.openings") ?? "", /"userId":"bob"/);
  assert.equal(told.size, 1);
  second.close();
});

for (const [what, permission] of [
  ["fails", () => Promise.reject(new Error("the system is not ready"))],
  ["is never answered", () => new Promise<never>(() => undefined)],
  [
    "throws",
    () => {
      throw new Error("the system is not ready");
    },
  ],
] as const) {
  test(`an open at which the permission ${what} pays what is owed, registers and reads`, async () => {
    const phone = new Phone();
    const store = new Disk();
    const app = await startFastbell({ ...OPTIONS, store }, phone.ports());
    await app.signedIn("alice");
    await until(() => app.push.current.is === "registered");
    phone.way = () => Promise.reject(new TypeError("no network"));
    await app.signOut();
    await app.signedIn("bob");
    assert.equal(phone.paid, 0);
    phone.way = () => null;

    phone.permission = permission as () => Promise<"granted">;
    phone.onForeground(true);
    await until(() => phone.paid === 1 && app.push.current.is === "registered" && store.items.size === 3);
    app.close();
  });
}

test("secrets that hang are asked again, keep nobody waiting, and are never lost, though they take writes", async () => {
  const phone = new Phone();
  const ports = phone.ports();
  const first = await startFastbell(OPTIONS, ports);
  await first.signedIn("alice");
  await until(() => first.push.current.is === "registered");
  first.close();
  const kept = phone.kept.get("fastbell.registration");
  const { read } = phone;
  let reads = 0;
  phone.read = async (name) => {
    reads += name === "fastbell.registration" ? 1 : 0;
    return new Promise<never>(() => undefined);
  };
  const app = later({
    clock: ports.clock,
    start: () => startFastbell({ ...OPTIONS, bearer: async () => "alice" }, ports),
    rest: () => new Promise((resolve) => void setImmediate(resolve)),
  });

  let isSaid = false;
  void app.signedIn("alice").then(() => {
    isSaid = true;
  });
  for (let starts = 1; starts < 3 * STARTS_AT_MOST; starts += 1) {
    await until(() => reads === starts);
    passes(phone, READ_LIMIT);
  }
  assert.deepEqual([isSaid, phone.kept.get("fastbell.registration")], [true, kept]);

  phone.read = read;
  await until(() => (passes(phone, READ_LIMIT), app.push.current.is === "registered"));
  app.close();
  assert.match(phone.kept.get("fastbell.registration") ?? "", /"userId":"alice"/);
});

test("a write that hangs keeps no sign-out waiting, and it is done once the write is", async () => {
  const phone = new Phone();
  const ports = phone.ports();
  const app = later({ clock: ports.clock, start: () => startFastbell(OPTIONS, ports), rest: async () => undefined });
  await app.signedIn("alice");
  await until(() => app.push.current.is === "registered");
  const { write } = phone;
  let goesOn: () => void = () => undefined;
  phone.write = async (name, value) => {
    await new Promise<void>((resolve) => (goesOn = resolve));
    return write(name, value);
  };

  const said = [app.signOut(), app.askPermission()];
  await until(() => phone.timers.filter(({ milliseconds }) => milliseconds === READ_LIMIT).length >= 2);
  await until(() => (passes(phone, READ_LIMIT), phone.timers.every(({ milliseconds }) => milliseconds !== READ_LIMIT)));
  await Promise.all(said);
  phone.write = write;
  goesOn();
  await until(() => app.push.current.is === "signed_out" && phone.paid === 1);
  app.close();
});

test("a second Fastbell goes on from what was stored last, whatever the first one's hanging write does afterwards", async () => {
  const phone = new Phone();
  const ports = phone.ports();
  const first = await startFastbell(OPTIONS, ports);
  await first.signedIn("alice");
  await until(() => first.push.current.is === "registered");
  const { write } = phone;
  let lands: () => void = () => undefined;
  phone.write = async (name, value) => {
    if (name === "fastbell.registration") {
      phone.write = write;
      await new Promise<void>((resolve) => (lands = resolve));
    }
    return write(name, value);
  };
  void first.signOut();
  await until(() => phone.timers.some(({ milliseconds }) => milliseconds === WRITE_LIMIT));
  const starting = startFastbell(OPTIONS, ports);
  await new Promise(setImmediate);
  passes(phone, WRITE_LIMIT); // the first one's patience, and the second's with it
  const second = await starting;
  await second.signedIn("bob");
  await until(() => second.push.current.is === "registered");
  lands();
  await new Promise(setImmediate);
  second.close();

  const third = await startFastbell(OPTIONS, { ...ports, secure: phone.ports().secure }); // a new process
  await third.signedIn("bob");
  await until(() => third.push.current.is === "registered");
  assert.equal(phone.paid, 1); // alice's ticket, once
  third.close();
});

test("openings that cannot be read hold up nothing, and a tap that was followed before is known once they can", async () => {
  const phone = new Phone();
  const ports = phone.ports();
  const told: string[] = [];
  const opened = (status: number) => (_: Request, path: string) => {
    if (!path.endsWith("/opened")) {
      return null;
    }
    told.push(path.split("/").at(-2)!);
    return new Response(null, { status, headers: { fastbell: "1" } });
  };
  phone.way = opened(503);
  const tap = { task_id: ID, kind: "test", url: "fastbell://test-push" };
  const first = await startFastbell(OPTIONS, ports);
  await first.signedIn("alice");
  phone.onTap(tap);
  await until(() => told.length === 1);
  assert.equal(first.openings.take()?.taskId, ID);
  first.close();

  const { read } = phone;
  let [fails, hangs] = [1, 1];
  phone.read = (name) => {
    if (name !== "fastbell.openings") {
      return read(name);
    }
    return hangs-- > 0 ? new Promise<never>(() => undefined) : fails-- > 0 ? Promise.reject(new Error("busy")) : read(name);
  };
  phone.way = opened(204);
  const second = await startFastbell(OPTIONS, ports);
  await until(() => second.push.current.is === "registered");
  phone.onTap(tap); // the system's memory of the last tap
  phone.onTap({ ...tap, task_id: ID.replace("5", "6") });
  await until(() => (passes(phone, 1_000), told.length === 3));
  assert.deepEqual([second.openings.take()?.taskId, second.openings.take()], [ID.replace("5", "6"), null]);
  await until(() => phone.kept.get("fastbell.openings")?.match(/"isTold":true/g)?.length === 2);
  second.close();
});

test("openings that can never be read are lost after some tries, and taps are followed meanwhile", async () => {
  const phone = new Phone();
  const { read } = phone;
  phone.read = (name) => (name === "fastbell.openings" ? Promise.reject(new Error("DecryptException")) : read(name));
  const app = await startFastbell(OPTIONS, phone.ports());
  await app.signedIn("alice");
  for (const number of [1, 2, 3, 4, 5]) {
    phone.onTap({ task_id: `task-${number}`, kind: "test", url: "fastbell://test-push" });
    await until(() => app.openings.take()?.taskId === `task-${number}`);
  }
  await until(() => phone.kept.get("fastbell.openings")?.includes("task-5") === true);
  app.close();
});

test("a tap is followed though the write of it hangs", async () => {
  const phone = new Phone();
  const app = await startFastbell(OPTIONS, phone.ports());
  await app.signedIn("alice");
  await until(() => app.push.current.is === "registered");
  const { write } = phone;
  phone.write = (name, value) => (name === "fastbell.openings" ? new Promise<never>(() => undefined) : write(name, value));
  phone.onTap({ task_id: ID, kind: "test", url: "fastbell://test-push" });
  await until(() => (passes(phone, 1_000), app.openings.take()?.taskId === ID));
  app.close();
});

test("a push whose opening is never taken holds up no other's", async () => {
  const phone = new Phone();
  const told: string[] = [];
  phone.way = (_, path) => {
    if (!path.endsWith("/opened")) {
      return null;
    }
    const task = path.split("/").at(-2)!;
    told.push(task);
    return new Response(null, { status: 204, headers: task === "task-1" ? {} : { fastbell: "1" } });
  };
  const app = await startFastbell(OPTIONS, phone.ports());
  await app.signedIn("alice");
  for (const number of [1, 2, 3]) {
    phone.onTap({ task_id: `task-${number}`, kind: "message", url: "fastbell://test-push" });
  }
  await until(() => (passes(phone, 1_000), ["task-2", "task-3"].every((task) => told.includes(task))));
  const before = told.length;
  phone.onForeground(true);
  await until(() => told.length > before);
  app.close();

  assert.equal(told.filter((task) => task !== "task-1").length, 2);
});

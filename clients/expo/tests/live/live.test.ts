/** The client against a real API, worker and simulator: what a person's phone shows, and what it never shows. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { Phone } from "./phone.ts";
import { Run, until } from "./run.ts";

let run: Run;
let people = 0;
const somebody = (name: string) => `${name}-${++people}`;

before(async () => {
  run = await Run.start();
});
after(() => run.stop());

/** Start a fast whose reminder is due in so many seconds; another if the answer took longer than that. */
async function fastDueIn(phone: Phone, seconds: number): Promise<string> {
  for (;;) {
    const id = randomUUID();
    const ends_at = new Date(Date.now() + 60_000 + seconds * 1000).toISOString();
    const started = await phone.app.fasts.start({ id, ends_at, reminder_minutes: [1] });
    assert.ok(started.ok, JSON.stringify(started));
    if (started.value.reminders.every(({ state }) => state !== "skipped")) {
      return id;
    }
    await phone.app.fasts.cancel(id);
  }
}

async function active(userId: string): Promise<string[]> {
  const answer = await run.call(await run.bearer(userId), "GET", "/v1/device-tokens");
  const { items } = (await answer.json()) as { items: { active: boolean; token: string }[] };
  return items.filter((row) => row.active).map((row) => row.token);
}

test("from sign-in to the reminder on the screen, in the log, and opened once for three reports", async () => {
  const phone = await new Phone(run).open();
  await phone.signIn(somebody("alice"));
  await until(() => phone.state === "registered");

  const id = await fastDueIn(phone, 2);
  await until(async () => (await run.screen(phone.token)).length > 0);
  const [line] = await run.screen(phone.token);
  assert.equal(line!.times_received, 1);
  assert.equal(line!.data["url"], `fastbell://fasting-sessions/${id}`);
  await until(() => [...phone.store.items.values()].some((item) => item.conversation_id === id)); // by its stream

  let reports = 0;
  phone.way = (request, send) => {
    reports += request.url.endsWith("/opened") ? 1 : 0;
    return send(request);
  };
  for (let times = 0; times < 3; times += 1) {
    phone.tap(line!.data);
  }
  await until(() => reports === 1);
  await phone.app.sync();
  assert.equal(reports, 1);
  assert.equal(phone.app.openings.take()?.path, `/fasting-sessions/${id}`);
  assert.equal(phone.app.openings.take(), null);
  phone.app.close();
});

test("a token that rotates while a registration hangs is the one that is registered", async () => {
  const phone = await new Phone(run).open();
  const release = Promise.withResolvers<void>();
  let puts = 0;
  phone.way = async (request, send) => {
    if (request.method === "PUT" && ++puts === 1) {
      await release.promise;
    }
    return send(request);
  };
  const alice = somebody("alice");
  await phone.signIn(alice);
  await until(() => puts === 1);

  phone.rotate();
  release.resolve();
  await until(() => phone.state === "registered" && puts === 2);

  assert.deepEqual(await active(alice), [phone.token.slice(-6)]);
  phone.app.close();
});

test("a registration that arrives after a newer one of the same sign-in changes nothing", async () => {
  const phone = await new Phone(run).open();
  const held: Request[] = [];
  phone.way = async (request, send) => {
    if (request.method !== "PUT" || held.length > 0) {
      return send(request);
    }
    held.push(request);
    throw new TypeError("no answer"); // it is on its way all the same
  };
  const alice = somebody("alice");
  await phone.signIn(alice);
  await until(() => held.length > 0);
  phone.rotate();
  await until(() => phone.state === "registered");

  const late = await fetch(held[0]!);

  const { type } = (await late.json()) as { type: string };
  assert.deepEqual([late.status, type], [409, "urn:fastbell:problem:registration-outdated"]);
  assert.deepEqual(await active(alice), [phone.token.slice(-6)]);
  phone.app.close();
});

test("alice signs out offline, bob signs in, and her sign-out that comes late harms nobody", async () => {
  const phone = await new Phone(run).open();
  const alice = somebody("alice");
  const bob = somebody("bob");
  await phone.signIn(alice);
  await until(() => phone.state === "registered");
  const before = phone.token;

  phone.goOffline();
  await phone.app.signOut();
  assert.deepEqual(phone.app.push.current, { is: "signed_out", owed: 1 });

  const hold = Promise.withResolvers<void>(); // her ticket is held up on the way, his registration is not
  const arrived: number[] = [];
  phone.way = async (request, send) => {
    if (!request.url.endsWith("/v1/sign-outs")) {
      return send(request);
    }
    await hold.promise;
    const answer = await send(request);
    arrived.push(answer.status);
    return answer;
  };
  phone.goOnline();
  await phone.signIn(bob);
  await until(() => phone.state === "registered");
  hold.resolve();
  await until(() => arrived.length > 0);
  assert.deepEqual(arrived, [204]);
  assert.deepEqual(JSON.parse(phone.secrets.get("fastbell.registration")!).owed, []);

  assert.notEqual(phone.token, before);
  assert.deepEqual(await active(alice), []);
  assert.deepEqual(await active(bob), [phone.token.slice(-6)]);
  const id = await fastDueIn(phone, 2);
  await until(async () => (await run.screen(phone.token)).length === 1);
  assert.equal((await run.screen(phone.token))[0]!.data["url"], `fastbell://fasting-sessions/${id}`);
  assert.deepEqual(await run.screen(before), []);
  phone.app.close();
});

test("an offline sign-out is paid when there is a network again, though nobody signs in", async () => {
  const phone = await new Phone(run).open();
  const alice = somebody("alice");
  await phone.signIn(alice);
  await until(() => phone.state === "registered");
  phone.goOffline();
  await phone.app.signOut();
  assert.equal((await active(alice)).length, 1);

  phone.goOnline();

  await until(async () => (await active(alice)).length === 0);
  phone.app.close();
});

test("a registration that comes to the server after its sign-out was paid registers nobody", async () => {
  const phone = await new Phone(run).open();
  const held: Request[] = [];
  phone.way = async (request, send) => {
    if (request.method !== "PUT") {
      return send(request);
    }
    held.push(request);
    throw new TypeError("no answer"); // it is on its way all the same
  };
  const alice = somebody("alice");
  await phone.signIn(alice);
  await until(() => held.length > 0);
  await phone.app.signOut();
  await until(() => JSON.parse(phone.secrets.get("fastbell.registration")!).owed.length === 0);

  const late = await fetch(held[0]!);

  const { type } = (await late.json()) as { type: string };
  assert.deepEqual([late.status, type], [409, "urn:fastbell:problem:ticket-spent"]);
  assert.deepEqual(await active(alice), []);
  phone.way = (request, send) => send(request);
  await phone.signIn(alice);
  await until(() => phone.state === "registered");
  assert.deepEqual(await active(alice), [phone.token.slice(-6)]);
  phone.app.close();
});

test("a token that its provider calls dead is registered once more, and then another one is waited for", async () => {
  const phone = await new Phone(run).open();
  const alice = somebody("alice");
  await phone.signIn(alice);
  await until(() => phone.state === "registered");
  const dead = phone.token;
  const dies = async () => {
    phone.background();
    await fastDueIn(phone, 1);
    await until(async () => (await active(alice)).length === 0);
    phone.foreground(); // its sync says refresh_required
  };
  await run.fault({ provider: "apns", token: dead, fault: "answer", status: 410, reason: "Unregistered", timestamp: Date.now() + 3_600_000 });

  await dies();
  await until(async () => (await active(alice))[0] === dead.slice(-6)); // the provider may have erred
  await dies();
  await until(() => phone.state === "waiting_for_token");
  assert.deepEqual(await active(alice), []);

  phone.rotate(); // the system gives another one
  await until(() => phone.state === "registered");
  assert.deepEqual(await active(alice), [phone.token.slice(-6)]);
  phone.app.close();
});

test("an installation that somebody else has is left to them, and the phone takes another", async () => {
  const phone = await new Phone(run).open();
  const alice = somebody("alice");
  await phone.signIn(alice);
  await until(() => phone.state === "registered");
  await phone.app.sync(); // the one that its registration began is over
  phone.background();
  const { installationId, person } = JSON.parse(phone.secrets.get("fastbell.registration")!);
  const left = await run.call("", "POST", "/v1/sign-outs", { installation_id: installationId, ticket: person.ticket });
  assert.equal(left.status, 204);
  const mallory = somebody("mallory");
  const body = { provider: "apns", token: "0123456789abcdef".repeat(4), sign_out_digest: "0".repeat(64) };
  const took = await run.call(await run.bearer(mallory), "PUT", `/v1/device-tokens/${installationId}`, body);
  assert.equal(took.status, 200);

  phone.rotate(); // so that neither token nor ticket is theirs
  phone.foreground();

  await until(async () => (await active(alice))[0] === phone.token.slice(-6));
  await until(() => phone.state === "registered");
  assert.notEqual(JSON.parse(phone.secrets.get("fastbell.registration")!).installationId, installationId);
  assert.deepEqual(await active(mallory), ["abcdef"]);
  phone.app.close();
});

test("a stream that is cut in the middle of an event loses nothing and repeats nothing", async () => {
  const phone = new Phone(run);
  let cuts = 0;
  phone.way = async (request, send) => {
    const response = await send(request);
    return request.url.includes("/v1/stream") && cuts++ === 0 ? cutAfterFirstId(response) : response;
  };
  const bob = somebody("bob");
  await phone.open();
  await phone.signIn(bob);
  await until(() => phone.state === "registered" && cuts === 1);
  const seen: number[] = [];
  phone.app.onItems((items) => seen.push(...items.map((item) => item.seq)));
  const service = await run.bearer("backend", "service");
  const alice = somebody("alice");
  const conversation = randomUUID();
  await run.call(service, "PUT", `/v1/conversations/${conversation}`, { member_ids: [alice, bob] });
  const writer = await run.bearer(alice);

  for (const body of ["one", "two", "three"]) {
    const answer = await run.call(writer, "PUT", `/v1/conversations/${conversation}/messages/${randomUUID()}`, { body });
    assert.equal(answer.status, 201);
  }
  await until(() => phone.store.items.size === 3 && cuts >= 2);

  assert.deepEqual([...phone.store.items.values()].map((item) => item.body), ["one", "two", "three"]);
  assert.deepEqual([...new Set(seen)], seen);
  phone.app.close();
});

test("a cursor that is older than the log goes on from its start, and the app is told", async () => {
  const phone = await new Phone(run).open();
  const bob = somebody("bob");
  await phone.signIn(bob);
  await until(() => phone.state === "registered");
  await phone.app.sync(); // the one that its registration began is over
  phone.background();
  const service = await run.bearer("backend", "service");
  const conversation = randomUUID();
  await run.call(service, "PUT", `/v1/conversations/${conversation}`, { member_ids: ["writer", bob] });
  const writer = await run.bearer("writer");
  for (const body of ["one", "two", "three"]) {
    await run.call(writer, "PUT", `/v1/conversations/${conversation}/messages/${randomUUID()}`, { body });
  }
  await phone.store.apply([], 1);
  await run.sql(`DELETE FROM log_items WHERE user_id = '${bob}' AND seq <= 2`);
  await run.sql(`UPDATE log_heads SET horizon = 2 WHERE user_id = '${bob}'`);
  let gaps = 0;
  phone.app.onGap(() => (gaps += 1));

  assert.equal(await phone.app.sync(), null);

  assert.equal(gaps, 1);
  assert.deepEqual([...phone.store.items.values()].map((item) => item.body), ["three"]);
  phone.app.close();
});

test("a process that is killed between storing and acting goes on where it was, signing in and out", async () => {
  const directory = await mkdtemp(join(tmpdir(), "fastbell-victim-"));
  after(() => rm(directory, { recursive: true }));
  for (const writes of [1, 2, 3, 4]) {
    const file = join(directory, `${writes}.json`);
    const alice = somebody("alice");
    const bearer = await run.bearer(alice);
    await killed(run.api, alice, bearer, file, String(writes), "in");

    const phone = new Phone(run, new Map(JSON.parse(await readFile(file, "utf8"))));
    phone.bearer = bearer;
    await phone.open();
    await phone.app.signedIn(alice); // as an app does whenever it starts with somebody signed in
    await until(() => phone.state === "registered");
    assert.deepEqual(await active(alice), [phone.token.slice(-6)]);
    phone.app.close();

    await writeFile(file, JSON.stringify([...phone.secrets]));
    await killed(run.api, alice, bearer, file, "1", "out");
    const left = new Phone(run, new Map(JSON.parse(await readFile(file, "utf8"))));
    await left.open();
    await until(async () => (await active(alice)).length === 0);
    assert.equal(left.state, "signed_out");
    left.app.close();
  }
});

test("preferences change one by one, not over what another phone changed, and have a page", async () => {
  const userId = somebody("alice");
  const phone = await new Phone(run).open();
  await phone.signIn(userId);
  const { preferences } = phone.app;
  const read = await preferences.read();
  assert.ok(read.ok);

  const changed = await preferences.change({ quiet_hours: { starts: "22:00", ends: "07:00", time_zone: null } }, read.value.rev);
  assert.ok(changed.ok, JSON.stringify(changed));
  assert.deepEqual(changed.value.quiet_hours, { starts: "22:00", ends: "07:00", time_zone: null, mode: "silent" });
  assert.equal(changed.value.reminders, read.value.reminders);
  const late = await preferences.change({ messages: false }, read.value.rev);
  assert.ok(!late.ok && late.problem.is === "refused" && late.problem.status === 412, JSON.stringify(late));

  const page = await preferences.pageUrl();
  assert.ok(page.ok, JSON.stringify(page));
  assert.ok(page.value.startsWith(`${run.api}/preferences/`), page.value);
  const opened = await fetch(page.value, { redirect: "manual" });
  assert.equal(opened.status, 303);
  const cookie = opened.headers.get("set-cookie")!.split(";")[0]!;
  const html = await (await fetch(new URL(opened.headers.get("location")!, page.value), { headers: { cookie } })).text();
  assert.match(html, /22:00/); // what was changed above
  assert.equal((await fetch(page.value, { redirect: "manual" })).status, 404);
  phone.app.close();
});

/** Run a phone's process until it is killed by what it stores. */
async function killed(...words: string[]): Promise<void> {
  const process_ = spawn(process.execPath, [join(import.meta.dirname, "victim.ts"), ...words], { stdio: "inherit" });
  const [, signal] = (await once(process_, "exit")) as [number | null, string | null];
  assert.equal(signal, "SIGKILL");
}

/** End a stream in the middle of its first event. */
function cutAfterFirstId(response: Response): Response {
  const cut = new TransformStream<Uint8Array, Uint8Array>({
    transform(chunk, controller) {
      const text = new TextDecoder().decode(chunk);
      const at = text.indexOf("event: item");
      controller.enqueue(at < 0 ? chunk : chunk.slice(0, at + 20));
      if (at >= 0) {
        controller.terminate();
      }
    },
  });
  return new Response(response.body!.pipeThrough(cut), response);
}

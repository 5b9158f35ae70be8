/** createFastbell as an app calls it, on a phone whose libraries are doubles. */

import "./doubles/hooks.ts";

import assert from "node:assert/strict";
import { test } from "node:test";

import { phone } from "./doubles/phone.ts";

const { createFastbell } = await import("../../src/index.ts");

const ID = "5f0c3c0e-6d5b-4c6c-9d59-3f0f0a4f7a01";
const OPTIONS = { baseUrl: "https://fast.example", bearer: async () => "bearer", sealed: true };

async function until(isTrue: () => boolean): Promise<void> {
  const deadline = Date.now() + 5_000;
  while (!isTrue()) {
    assert.ok(Date.now() < deadline, String(isTrue));
    await new Promise(setImmediate);
  }
}

const puts = () => phone.requests.filter(({ method }) => method === "PUT");

test("signing in registers the phone with all that it says of itself, and signing out pays with the ticket", async () => {
  const app = createFastbell({ ...OPTIONS, channels: { reminders: "Erinnerungen", messages: "Nachrichten", quiet: "Ohne Ton" } });
  await app.signedIn("alice");
  await until(() => app.push.current.is === "registered");

  const { sign_out_digest, ...said } = puts()[0]?.body ?? {};
  assert.match(String(sign_out_digest), /^[0-9a-f]{64}$/);
  assert.deepEqual(said, {
    provider: "apns",
    token: "token-1",
    environment: "sandbox",
    app_id: null,
    locale: "de-AT",
    time_zone: "Europe/Vienna",
    app_version: "1.2.3",
    os_version: "26.1",
    permission: "granted",
    public_key: "public-key",
    sequence: 1,
    former_ticket: null,
  });
  assert.deepEqual(phone.channels, ["reminders: Erinnerungen", "messages: Nachrichten", "quiet: Ohne Ton"]);

  const before = phone.dismissedAll;
  await app.signOut();
  await until(() => phone.requests.some(({ path }) => path === "/v1/sign-outs"));
  assert.equal(phone.dismissedAll, before + 1);
  app.close();
});

test("a tap that comes before anything is read waits for the app, and what is on the screen stays silent", async () => {
  const app = createFastbell(OPTIONS);
  const url = `fastbell://conversations/${ID}`;
  const request = { identifier: "1", content: { data: null }, trigger: { payload: { task_id: ID, kind: "message", url } } };
  await app.signedIn("alice");
  phone.listeners.get("response")?.({ notification: { request } } as never);

  let opening = app.openings.take();
  await until(() => (opening ??= app.openings.take()) !== null);
  assert.equal(opening?.path, `/conversations/${ID}`);

  const shows = async () => (await phone.handler?.handleNotification({ request }))?.shouldShowBanner;
  assert.equal(await shows(), true);
  app.looksAt(`/conversations/${ID}`);
  assert.equal(await shows(), false);
  app.close();
});

test("whoever the keychain speaks of after a reinstall is signed out", async () => {
  assert.match(phone.secrets.get("fastbell.registration") ?? "", /alice/);
  phone.settings.clear();

  phone.isLocked = true; // a sign-out that cannot be stored is none yet: the next start says it again
  const locked = createFastbell(OPTIONS);
  await locked.signOut();
  locked.close();
  assert.equal(phone.settings.get("fastbell.installed"), undefined);
  phone.isLocked = false;

  const app = createFastbell(OPTIONS);
  await until(() => phone.settings.get("fastbell.installed") === 1);

  assert.equal(app.push.current.is, "signed_out");
  assert.doesNotMatch(phone.secrets.get("fastbell.registration") ?? "", /alice/);
  app.close();
});

test("who uses the phone is told as soon as the app says it", async () => {
  const app = createFastbell(OPTIONS);
  const told: (string | null)[] = [];
  const end = app.person.subscribe((person) => told.push(person));

  assert.equal(app.person.current, null);
  const signedIn = app.signedIn("alice");
  assert.equal(app.person.current, "alice");
  await signedIn;
  await app.signedIn("alice");
  await app.signedIn("bob");
  await app.signOut();
  end();
  await app.signedIn("carol");

  assert.deepEqual([told, app.person.current], [["alice", "bob", null], "carol"]);
  await app.signOut();
  app.close();
});

test("a second createFastbell takes the place of the first, as a development server makes one with each change", async () => {
  const first = createFastbell(OPTIONS);
  await first.signedIn("alice");
  await until(() => first.push.current.is === "registered");
  const second = createFastbell({ ...OPTIONS, bearer: async () => "another" });
  await second.signedIn("bob");
  await until(() => second.push.current.is === "registered");
  const before = puts().length;

  await first.signedIn("alice");
  await first.signOut();
  await until(() => second.push.current.is === "registered");

  assert.match(phone.secrets.get("fastbell.registration") ?? "", /"userId":"bob"/);
  assert.equal(puts().length, before);
  second.close();
});

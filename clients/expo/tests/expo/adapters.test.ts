/** The adapters against doubles that behave as expo-notifications and its neighbours were read to behave. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { dataOf, lineOf } from "../../src/expo/content.ts";
import { foregroundOf } from "../../src/expo/foreground.ts";
import { keysOf } from "../../src/expo/keys.ts";
import { networkOf } from "../../src/expo/network.ts";
import { permissionsOf } from "../../src/expo/permissions.ts";
import { type TokenModule, pushOf } from "../../src/expo/push.ts";
import { randomOf } from "../../src/expo/random.ts";
import { markInstalled, wasReinstalled } from "../../src/expo/reinstall.ts";
import { screenOf, showInFront } from "../../src/expo/screen.ts";
import { secureOf } from "../../src/expo/secure.ts";
import { tapsOf } from "../../src/expo/taps.ts";

const ID = "5f0c3c0e-6d5b-4c6c-9d59-3f0f0a4f7a01";

/** ExpoPushTokenManager: each token goes to the listeners, too, and on iOS a second fetch rejects the first. */
class TokenManager implements TokenModule {
  fetches = 0;
  unregistered = 0;
  readonly listeners = new Set<(event: { devicePushToken: string }) => void>();
  #pending: { resolve(token: string): void; reject(error: Error): void } | null = null;

  getDevicePushTokenAsync(): Promise<string> {
    this.fetches += 1;
    this.#pending?.reject(Object.assign(new Error("replaced"), { code: "E_PROMISE_REPLACED" }));
    return new Promise((resolve, reject) => {
      this.#pending = { resolve, reject };
    });
  }

  async unregisterForNotificationsAsync(): Promise<void> {
    this.unregistered += 1;
  }

  addListener(_: "onDevicePushToken", listener: (event: { devicePushToken: string }) => void) {
    this.listeners.add(listener);
    return { remove: () => void this.listeners.delete(listener) };
  }

  gives(token: string): void {
    this.#pending?.resolve(token);
    this.#pending = null;
    [...this.listeners].forEach((listener) => listener({ devicePushToken: token }));
  }

  fails(): void {
    this.#pending?.reject(new Error("no network"));
    this.#pending = null;
  }
}

const sandbox = async () => "sandbox" as const;

test("a token is fetched again after a failure, without the memory of it", async () => {
  const module = new TokenManager();
  const push = pushOf({ module, os: "ios", environment: sandbox });

  const first = push.fetchToken();
  module.fails();
  await assert.rejects(first, /no network/);
  const second = push.fetchToken();
  module.gives("t2");

  assert.deepEqual(await second, { provider: "apns", token: "t2", environment: "sandbox" });
  assert.equal(module.fetches, 2);
});

test("a fetch that the app's own fetch took over gives the token that the listener hears", async () => {
  const module = new TokenManager();
  const push = pushOf({ module, os: "ios", environment: sandbox });

  const ours = push.fetchToken();
  const theirs = module.getDevicePushTokenAsync();
  await new Promise(setImmediate);
  module.gives("t1");

  assert.equal((await ours).token, "t1");
  assert.equal(await theirs, "t1");
  assert.equal(module.listeners.size, 0);
});

test("a token that rotates is told without another fetch, and no longer than somebody listens", async () => {
  const module = new TokenManager();
  const push = pushOf({ module, os: "android", environment: sandbox });
  const seen: unknown[] = [];

  const end = push.observe((token) => seen.push(token));
  module.gives("t1");
  await new Promise(setImmediate);
  end();
  module.gives("t2");
  await new Promise(setImmediate);

  assert.deepEqual(seen, [{ provider: "fcm", token: "t1", environment: "production" }]);
  assert.equal(module.fetches, 0);
});

test("signing out ends the registration on iOS alone", async () => {
  for (const [os, times] of [["ios", 1], ["android", 0]] as const) {
    const module = new TokenManager();
    await pushOf({ module, os, environment: sandbox }).unregister();
    assert.equal(module.unregistered, times, os);
  }
});

test("the three channels are there before the person is asked", async () => {
  const said: string[] = [];
  const module = {
    AndroidImportance: { HIGH: 6, LOW: 4 },
    setNotificationChannelAsync: async (id: string, { name, importance }: { name: string; importance: number }) => {
      said.push(`${id} ${name} ${importance}`);
    },
    getPermissionsAsync: async () => ({ status: "undetermined" }),
    requestPermissionsAsync: async () => {
      said.push("asked");
      return { status: "granted" };
    },
  };
  const permissions = permissionsOf(module, { reminders: "Erinnerungen", messages: "Nachrichten", quiet: "Ohne Ton" });

  assert.equal(await permissions.read(), "undetermined");
  assert.equal(await permissions.ask(), "granted");
  assert.deepEqual(said, ["reminders Erinnerungen 6", "messages Nachrichten 6", "quiet Ohne Ton 4", "asked"]);
});

test("a permission is named as the backend names it", async () => {
  for (const [status, named] of [
    [{ status: "granted", ios: { status: 2 } }, "granted"],
    [{ status: "granted", ios: { status: 3 } }, "provisional"],
    [{ status: "undetermined", ios: { status: 0 } }, "undetermined"],
    [{ status: "denied" }, "denied"],
    [{ status: "something new" }, "undetermined"],
  ] as const) {
    const read = async () => status;
    const module = {
      AndroidImportance: { HIGH: 6, LOW: 4 },
      setNotificationChannelAsync: read,
      getPermissionsAsync: read,
      requestPermissionsAsync: read,
    };
    const permissions = permissionsOf(module, { reminders: "r", messages: "m", quiet: "q" });
    assert.equal(await permissions.read(), named);
  }
});

const response = (data: object) => ({ notification: { request: { identifier: "1", content: { data }, trigger: null } } });

class Responses {
  listener: ((tap: ReturnType<typeof response>) => void) | null = null;
  last: ReturnType<typeof response> | null = null;
  addNotificationResponseReceivedListener(listener: (tap: ReturnType<typeof response>) => void) {
    this.listener = listener;
    return { remove: () => undefined };
  }
  getLastNotificationResponse() {
    return this.last;
  }
  clearLastNotificationResponse() {
    this.last = null;
  }
}

test("a tap that started the app is told once somebody listens, and not again at the next start", () => {
  const module = new Responses();
  module.last = response({ task_id: "cold" });
  const taps = tapsOf(module);
  module.listener?.(response({ task_id: "early" }));
  const seen: unknown[] = [];

  taps.observe((data) => seen.push(data));
  module.listener?.(response({ task_id: "late" }));

  assert.deepEqual(seen, [{ task_id: "early" }, { task_id: "cold" }, { task_id: "late" }]);
  assert.equal(module.last, null);
});

test("what a push carried is found where each system has it", () => {
  const data = { task_id: "1", kind: "reminder", url: `fastbell://fasting-sessions/${ID}` };
  const apns = { identifier: "x", content: { data: null }, trigger: { type: "push", payload: { aps: {}, ...data } } };
  const fcm = { identifier: "x", content: { data }, trigger: { type: "push", remoteMessage: {} } };

  assert.deepEqual(dataOf(apns), { aps: {}, ...data });
  assert.deepEqual(dataOf(fcm), data);
  assert.equal(dataOf({ identifier: "x", content: {}, trigger: null }), undefined);
});

test("a line is named by its tag, whoever showed it", async () => {
  const foreign = `expo-notifications://foreign_notifications?tag=fasting-session%2F${ID}&id=0`;
  const otherApp = "expo-notifications://foreign_notifications?tag=x&id=7";
  const lines = [`fasting-session/${ID}`, foreign, otherApp].map((identifier) => ({
    request: { identifier, content: { data: {} }, trigger: null },
  }));
  const module = {
    getPresentedNotificationsAsync: async () => lines,
    dismissNotificationAsync: async () => undefined,
    dismissAllNotificationsAsync: async () => undefined,
    setBadgeCountAsync: async () => true,
  };

  const shown = await screenOf(module).shown();

  assert.deepEqual(shown.map(({ identifier }) => identifier), [`fasting-session/${ID}`, `fasting-session/${ID}`, otherApp]);
  assert.equal(lineOf({ identifier: "plain", content: {}, trigger: null }), "plain");
});

test("a push that leads to what is on the screen stays silent, and others show", async () => {
  let handle: (shown: { request: Parameters<typeof dataOf>[0] }) => Promise<{ shouldShowBanner: boolean; shouldPlaySound: boolean }>;
  const module = { setNotificationHandler: (handler: { handleNotification: typeof handle }) => (handle = handler.handleNotification) };
  let path: string | null = `/conversations/${ID}`;
  showInFront(module, ["fastbell://"], () => path);
  const shows = async (data: object) => {
    const { shouldShowBanner, shouldPlaySound } = await handle({ request: { identifier: "1", content: { data }, trigger: null } });
    return [shouldShowBanner, shouldPlaySound];
  };

  assert.deepEqual(await shows({ url: `fastbell://conversations/${ID}` }), [false, false]);
  assert.deepEqual(await shows({ url: `fastbell://fasting-sessions/${ID}` }), [true, true]);
  assert.deepEqual(await shows({ url: `fastbell://fasting-sessions/${ID}`, silent: "true" }), [true, false]);
  path = null;
  assert.deepEqual(await shows({ url: `fastbell://conversations/${ID}` }), [true, true]);
  path = "/"; // home is not where a link led that is not followed
  assert.deepEqual(await shows({ url: "https://shop.example/offer" }), [true, true]);
  assert.deepEqual(await shows({}), [true, true]);
});

test("the network is told each time it comes, and its one listener stays", () => {
  let tell: (state: { isConnected?: boolean; isInternetReachable?: boolean }) => void = () => undefined;
  let listeners = 0;
  const network = networkOf({
    addNetworkStateListener: (listener) => {
      listeners += 1;
      tell = listener;
      return { remove: () => assert.fail("iOS would hear nothing any more") };
    },
  });
  let backs = 0;
  const end = network.observe(() => (backs += 1));

  tell({ isConnected: false });
  assert.equal(backs, 0);
  tell({ isConnected: true });
  assert.equal(backs, 1);
  tell({ isConnected: true, isInternetReachable: false });
  tell({ isConnected: true, isInternetReachable: true });
  tell({ isConnected: true, isInternetReachable: true });
  assert.equal(backs, 2);
  end();
  tell({ isConnected: false });
  tell({ isConnected: true });
  assert.deepEqual([backs, listeners], [2, 1]);
});

test("an app that started without a network is told though the first event is of one that is there", () => {
  let tell: (state: { isConnected: boolean }) => void = () => undefined;
  const network = networkOf({ addNetworkStateListener: (listener) => ((tell = listener), { remove: () => undefined }) });
  let backs = 0;
  network.observe(() => (backs += 1));

  tell({ isConnected: true });

  assert.equal(backs, 1);
});

test("a glance at the control centre is no leave", () => {
  let tell: (status: "active" | "background" | "inactive") => void = () => undefined;
  const foreground = foregroundOf({
    currentState: "active",
    addEventListener: (_, listener) => {
      tell = listener;
      return { remove: () => undefined };
    },
  });
  const seen: boolean[] = [];
  foreground.observe((isActive) => seen.push(isActive));

  tell("inactive");
  assert.equal(foreground.isActive, true);
  tell("active");
  tell("background");
  assert.equal(foreground.isActive, false);
  assert.deepEqual(seen, [true, false]);
});

test("secrets are readable on a locked phone, and on this phone only", async () => {
  const used: unknown[] = [];
  const store = {
    AFTER_FIRST_UNLOCK_THIS_DEVICE_ONLY: 1,
    getItemAsync: async (key: string, options?: object) => (used.push([key, options]), "kept"),
    setItemAsync: async (key: string, _: string, options?: object) => void used.push([key, options]),
  };
  const vault = secureOf(store).vault("fastbell.registration");

  await vault.write("kept");
  assert.equal(await vault.read(), "kept");
  const once = ["fastbell.registration", { keychainAccessible: 1 }];
  assert.deepEqual(used, [once, once]);
});

test("only iOS keeps its keychain through a reinstall", () => {
  const settings = new Map<string, unknown>();
  const defaults = { get: (key: string) => settings.get(key), set: (more: object) => Object.entries(more).forEach(([k, v]) => settings.set(k, v)) };

  assert.equal(wasReinstalled("android", defaults), false);
  assert.equal(wasReinstalled("ios", defaults), true);
  markInstalled("ios", defaults);
  assert.equal(wasReinstalled("ios", defaults), false);
});

test("a ticket has 32 random bytes, and the key's private half no way here", async () => {
  const random = randomOf({ randomUUID: () => ID.toUpperCase(), getRandomBytes: (count) => new Uint8Array(count).fill(171) });
  const none = keysOf(() => null);

  assert.equal(random.ticket(), "ab".repeat(32));
  assert.equal(random.uuid(), ID);
  await assert.rejects(none.publicKey(), /native part/);
  await none.forget();
});

/** The hooks, in React. */

import "./doubles/hooks.ts";

import assert from "node:assert/strict";
import { test } from "node:test";

import { Window } from "happy-dom";
import { type ReactNode, act, createElement } from "react";
import { createRoot } from "react-dom/client";

import type { Fast, Preferences, PushState } from "../../src/core/fastbell.ts";
import type { Opening } from "../../src/core/openings.ts";
import type { Outcome } from "../../src/core/problems.ts";
import type { PhoneFastbell } from "../../src/index.ts";
import { type Changeable, FastbellProvider, useCurrentFast, usePreferences, usePushState } from "../../src/react.ts";
import { router } from "./doubles/expo-router.ts";

const { nativeIntent, useOpenings } = await import("../../src/router.ts");

const window = new Window();
Object.assign(globalThis, { window, document: window.document, IS_REACT_ACT_ENVIRONMENT: true });

/** A Fastbell that a test moves. */
class Moved {
  state: PushState = { is: "signed_out", owed: 0 };
  fast: Outcome<Fast | null> = { ok: true, value: null };
  preferences = { reminders: true, messages: true, rev: 1 } as Preferences;
  reading: Promise<void> | null = null;
  changes = 0;
  page: Outcome<string> = { ok: true, value: "https://fast.example/preferences/code" };
  waiting: Opening[] = [];
  looked: (string | null)[] = [];
  readonly observers = new Set<() => void>();
  readonly #observe = (observer: (value: never) => void) => {
    this.observers.add(observer as () => void);
    return () => void this.observers.delete(observer as () => void);
  };

  person: string | null = "alice";
  readonly people = new Set<() => void>();
  readsOfFast = 0;
  readingFast: Promise<void> | null = null;

  /** Somebody uses the phone from now on, or nobody. */
  async belongsTo(person: string | null): Promise<void> {
    this.person = person;
    await act(async () => this.people.forEach((observer) => observer()));
  }

  readonly fastbell = {
    person: this.#personObservable(),
    push: { current: this.state, subscribe: this.#observe },
    onItems: this.#observe,
    fasts: {
      current: async () => {
        this.readsOfFast += 1;
        const { fast } = this;
        await this.readingFast;
        return fast;
      },
    },
    preferences: {
      read: async () => {
        const value = this.preferences;
        await this.reading;
        return { ok: true, value };
      },
      pageUrl: async () => {
        await this.reading;
        return this.page;
      },
      change: async (to: Partial<Preferences>, rev: number) => {
        this.changes += 1;
        await Promise.resolve();
        if (rev !== this.preferences.rev) {
          return { ok: false, problem: { is: "refused", status: 412, type: "preferences-changed", detail: "Changed elsewhere." } };
        }
        this.preferences = { ...this.preferences, ...to, rev: rev + 1 };
        return { ok: true, value: this.preferences };
      },
    },
    openings: { take: () => this.waiting.shift() ?? null, subscribe: this.#observe },
    looksAt: (path: string | null) => void this.looked.push(path),
  } as unknown as PhoneFastbell & { push: { current: PushState } };

  #personObservable() {
    const moved = this;
    return {
      get current() {
        return moved.person;
      },
      subscribe: (observer: () => void) => {
        this.people.add(observer);
        return () => void this.people.delete(observer);
      },
    };
  }

  async tell(): Promise<void> {
    await act(async () => {
      [...this.observers].forEach((observer) => observer());
    });
  }
}

async function shown(Component: () => ReactNode, moved?: Moved) {
  const place = document.createElement("div");
  const root = createRoot(place);
  const element = () => createElement(Component);
  const render = () =>
    act(async () => {
      root.render(moved === undefined ? element() : createElement(FastbellProvider, { fastbell: moved.fastbell }, element()));
    });
  await render();
  return { text: () => place.textContent, render, end: () => act(async () => root.unmount()) };
}

test("a screen follows the state of the registration", async () => {
  const moved = new Moved();
  let renders = 0;
  const screen = await shown(() => {
    renders += 1;
    return usePushState().is;
  }, moved);

  assert.equal(screen.text(), "signed_out");
  Object.assign(moved.fastbell.push, { current: { is: "waiting_for_token", since: new Date(0), last: null } });
  await moved.tell();
  assert.equal(screen.text(), "waiting_for_token");
  const before = renders;
  Object.assign(moved.fastbell.push, { current: { is: "waiting_for_token", since: new Date(0), last: null } });
  await moved.tell();
  assert.equal(renders, before);
  await screen.end();
  assert.equal(moved.observers.size, 0);
});

test("a screen has the fast that is going on, reads it again with the log, and keeps it without a network", async () => {
  const moved = new Moved();
  const screen = await shown(() => {
    const { value, problem } = useCurrentFast();
    return `${value?.id ?? "none"} ${problem?.is ?? "fine"}`;
  }, moved);

  assert.equal(screen.text(), "none fine");
  moved.fast = { ok: true, value: { id: "fast-1" } as Fast };
  await moved.tell();
  assert.equal(screen.text(), "fast-1 fine");
  moved.fast = { ok: false, problem: { is: "offline", detail: "no network" } };
  await moved.tell();
  assert.equal(screen.text(), "fast-1 offline");
  await screen.end();
});

test("a preference changes, and nothing that another phone changed meanwhile is overwritten unseen", async () => {
  const moved = new Moved();
  let hook: Changeable | undefined;
  const screen = await shown(() => {
    hook = usePreferences();
    return `${hook.value?.reminders} ${hook.value?.messages} ${hook.problem?.is ?? "fine"}`;
  }, moved);
  const change = async (to: Partial<Preferences>) => {
    let isChanged: boolean | undefined;
    await act(async () => {
      isChanged = await hook?.change(to);
    });
    return isChanged;
  };

  assert.equal(await change({ reminders: false }), true);
  assert.equal(screen.text(), "false true fine");
  moved.preferences = { ...moved.preferences, messages: false, rev: 9 };
  assert.equal(await change({ reminders: true }), false);
  assert.equal(screen.text(), "false false refused");
  assert.equal(await change({ reminders: true }), true);
  assert.equal(screen.text(), "true false fine");
  await screen.end();
});

/** The hook of a screen, to be used as a person's taps use it. */
async function preferencesOf(moved: Moved) {
  let hook!: Changeable;
  const screen = await shown(() => {
    hook = usePreferences();
    return `${hook.value?.reminders} ${hook.value?.messages} ${hook.problem?.is ?? "fine"}`;
  }, moved);
  const done = async <T>(does: (hook: Changeable) => Promise<T>): Promise<T> => {
    let result: T;
    await act(async () => {
      result = await does(hook);
    });
    return result!;
  };
  return { screen, done };
}

test("two taps in a row are two changes, and no conflict", async () => {
  const moved = new Moved();
  const { screen, done } = await preferencesOf(moved);

  const both = await done((hook) => Promise.all([hook.change({ reminders: false }), hook.change({ messages: false })]));

  assert.deepEqual(both, [true, true]);
  assert.equal(screen.text(), "false false fine");
  await screen.end();
});

test("a tap that was made before a conflict was seen changes nothing", async () => {
  const moved = new Moved();
  const { screen, done } = await preferencesOf(moved);
  moved.preferences = { ...moved.preferences, messages: false, rev: 9 };

  const both = await done((hook) => Promise.all([hook.change({ reminders: false }), hook.change({ messages: true })]));

  assert.deepEqual([both, moved.changes], [[false, false], 1]);
  assert.equal(screen.text(), "true false refused");
  assert.equal(await done((hook) => hook.change({ messages: true })), true);
  assert.equal(screen.text(), "true true fine");
  await screen.end();
});

test("a slow read never covers a newer change", async () => {
  const moved = new Moved();
  const { screen, done } = await preferencesOf(moved);
  const { promise, resolve } = Promise.withResolvers<void>();
  moved.reading = promise;

  await done(async (hook) => {
    const read = hook.refresh();
    const changed = hook.change({ reminders: false });
    resolve();
    await Promise.all([read, changed]);
  });

  assert.equal(screen.text(), "false true fine");
  await screen.end();
});

test("a log of 200 items is one more read of the fast, and who asks for one does not stand behind 200", async () => {
  const moved = new Moved();
  let refresh!: () => Promise<void>;
  const screen = await shown(() => {
    const fast = useCurrentFast();
    refresh = fast.refresh;
    return fast.value?.id ?? "none";
  }, moved);
  const { promise, resolve } = Promise.withResolvers<void>();
  moved.readingFast = promise;
  moved.readsOfFast = 0;

  await act(async () => {
    for (let item = 0; item < 200; item += 1) {
      [...moved.observers].forEach((observer) => observer());
      await Promise.resolve();
    }
    moved.fast = { ok: true, value: { id: "just started" } as Fast };
    const asked = refresh();
    resolve();
    await asked;
  });

  assert.deepEqual([moved.readsOfFast, screen.text()], [2, "just started"]); // the one under way, and one for all who came after
  await screen.end();
});

test("another person who signs in sees nothing of the last one's, and their own at once", async () => {
  const moved = new Moved();
  const fast = await shown(() => useCurrentFast().value?.id ?? "none", moved);
  moved.fast = { ok: true, value: { id: "alice's" } as Fast };
  await moved.tell();
  const { screen, done } = await preferencesOf(moved);
  await done((hook) => hook.change({ reminders: false }));
  assert.deepEqual([fast.text(), screen.text()], ["alice's", "false true fine"]);

  const { promise, resolve } = Promise.withResolvers<void>();
  [moved.reading, moved.readingFast] = [promise, promise];
  moved.preferences = { reminders: true, messages: false, rev: 40 } as Preferences;
  moved.fast = { ok: true, value: { id: "bob's" } as Fast };
  await moved.belongsTo("bob");
  assert.deepEqual([fast.text(), screen.text()], ["none", "undefined undefined fine"]);
  await act(async () => resolve());
  assert.deepEqual([fast.text(), screen.text()], ["bob's", "true false fine"]);
  assert.equal(await done((hook) => hook.change({ reminders: false })), true); // by bob's rev, not by alice's
  assert.equal(screen.text(), "false false fine");

  await moved.belongsTo(null);
  assert.deepEqual([fast.text(), screen.text()], ["none", "undefined undefined fine"]);
  await fast.end();
  await screen.end();
  assert.deepEqual([moved.people.size, moved.observers.size], [0, 0]);
});

test("nothing that the last person's screen began is shown to the next one, holds them up, or is done in their name", async () => {
  const moved = new Moved();
  const { screen, done } = await preferencesOf(moved);
  const { promise, resolve } = Promise.withResolvers<void>();
  moved.reading = promise; // alice's read hangs, and her tap waits behind it
  moved.preferences = { reminders: false, messages: false, rev: 1 } as Preferences;
  let tap!: Promise<boolean>;
  await done(async (hook) => {
    void hook.refresh();
    await Promise.resolve();
    tap = hook.change({ messages: true });
  });

  moved.reading = null;
  moved.preferences = { reminders: true, messages: false, rev: 7 } as Preferences;
  await moved.belongsTo("bob");
  assert.equal(screen.text(), "true false fine");
  await act(async () => resolve());
  assert.equal(await tap, false);
  assert.deepEqual([screen.text(), moved.changes], ["true false fine", 0]);
  await screen.end();
});

test("while nobody is signed in nothing is read", async () => {
  const moved = new Moved();
  moved.person = null;
  moved.fast = { ok: true, value: { id: "whoever's bearer is left" } as Fast };
  let refresh!: () => Promise<void>;
  const screen = await shown(() => {
    const fast = useCurrentFast();
    refresh = fast.refresh;
    return fast.value?.id ?? "none";
  }, moved);

  await act(() => refresh());
  assert.deepEqual([moved.readsOfFast, screen.text()], [0, "none"]);
  await moved.belongsTo("alice");
  assert.deepEqual([moved.readsOfFast, screen.text()], [1, "whoever's bearer is left"]);
  await screen.end();
});

test("a link to the page is handed over, and without one the screen says why", async () => {
  const moved = new Moved();
  const { screen, done } = await preferencesOf(moved);

  assert.equal(await done((hook) => hook.pageUrl()), "https://fast.example/preferences/code");
  moved.page = { ok: false, problem: { is: "offline", detail: "no network" } };
  assert.equal(await done((hook) => hook.pageUrl()), null);
  assert.equal(screen.text(), "true true offline");
  await screen.end();
});

test("a link that another person asked for is not handed over", async () => {
  const moved = new Moved();
  const { screen, done } = await preferencesOf(moved);
  const { promise, resolve } = Promise.withResolvers<void>();
  moved.reading = promise;
  let url!: Promise<string | null>;
  await done(async (hook) => {
    url = hook.pageUrl();
  });

  moved.reading = null;
  await moved.belongsTo("bob");
  await act(async () => resolve());
  assert.equal(await url, null);
  await screen.end();
});

test("a hook without a provider says so", async () => {
  await assert.rejects(async () => {
    await shown(() => usePushState().is);
  }, /no FastbellProvider/);
});

test("openings wait for a navigator and for a person, and are followed once each", async () => {
  const moved = new Moved();
  const opening = (path: string) => ({ path }) as Opening;
  moved.waiting.push(opening("/fasting-sessions/1"));
  let isSignedIn = false;
  const { render, end } = await shown(() => {
    useOpenings(moved.fastbell, isSignedIn);
    return null;
  });

  assert.deepEqual(router.navigated, []);
  router.isMounted = true;
  await render();
  assert.deepEqual(router.navigated, []);
  isSignedIn = true;
  await render();
  assert.deepEqual(router.navigated, ["/fasting-sessions/1"]);
  moved.waiting.push(opening("/conversations/2"));
  await moved.tell();
  await moved.tell();
  assert.deepEqual(router.navigated, ["/fasting-sessions/1", "/conversations/2"]);
  assert.deepEqual(moved.looked, ["/"]);
  await end();
  assert.deepEqual(moved.looked, ["/", null]);
});

test("links from elsewhere lead no further than a push could", () => {
  const id = "5f0c3c0e-6d5b-4c6c-9d59-3f0f0a4f7a01";
  assert.equal(nativeIntent({ path: `fastbell://conversations/${id}` }), `/conversations/${id}`);
  assert.equal(nativeIntent({ path: "fastbell://phone" }), "/");
  const links = ["fastbell://", "https://app.example/"];
  assert.equal(nativeIntent({ path: `https://app.example/conversations/${id}` }, links), `/conversations/${id}`);
  assert.equal(nativeIntent({ path: "fastbell://callback?code=1" }, links), "/");
});

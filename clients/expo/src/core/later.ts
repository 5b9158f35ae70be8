/** A Fastbell that is there at once, though the one behind it has still to read what it knows. */

import type { Fastbell, Observable, PushState } from "./fastbell.ts";
import { tell } from "./observers.ts";
import type { Clock } from "./ports.ts";
import { within } from "./within.ts";

export interface LaterEnds {
  readonly clock: Clock;
  start(): Promise<Fastbell>;
  /** Resolves when a start that failed so may be tried again. */
  rest(error: unknown): Promise<void>;
}

const SAY_LIMIT = 5_000; // milliseconds

const UNKNOWN: PushState = { is: "signed_out", owed: 0 };

const CLOSED = { is: "offline", detail: "closed before it had started" } as const;
const NOT_STARTED = { ok: false, problem: CLOSED } as const;

/**
 * Calls wait for the start, in their order. The start is tried until it succeeds, or all is closed: a phone that was
 * restarted and never unlocked lends no secrets. Until then `push.current` says that nobody is signed in. Who is signed in
 * may be said meanwhile: once a start has failed nobody waits for it, and it is passed on as soon as there is somebody to hear
 * it. Nor does anybody wait long for a phone that answers nothing.
 */
export function later({ start, rest, clock }: LaterEnds): Fastbell {
  let app: Fastbell | null = null;
  let isClosed = false;
  const failed = signal<void>();
  const closed = signal<void>();
  const started = signal<Fastbell>();
  const begin = async () => {
    for (;;) {
      if (isClosed) {
        return;
      }
      try {
        app = await start();
        if (isClosed) {
          app.close();
        }
        started.give(app);
        return;
      } catch (error) {
        failed.give();
        await (isClosed ? undefined : rest(error));
      }
    }
  };
  void begin();
  const said = async (say: (to: Fastbell) => Promise<void>): Promise<void> => {
    await within(clock, SAY_LIMIT, Promise.race([started.given.then(say), failed.given, closed.given]));
  };
  const asked = <T, O>(ask: (to: Fastbell) => Promise<T>, otherwise: O): Promise<T | O> => {
    const asking = started.given.then(ask);
    return Promise.race([asking, closed.given.then<T | O>(() => (app === null ? otherwise : asking))]);
  };
  const subscribed = <T>(subscribe: (to: Fastbell, observer: (value: T) => void) => () => void) => {
    return (observer: (value: T) => void): (() => void) => {
      let isWanted = true;
      let end: () => void = () => {
        isWanted = false;
      };
      void started.given.then((to) => {
        if (isWanted) {
          end = subscribe(to, observer);
        }
      });
      return () => end();
    };
  };
  const push: Observable<PushState> = {
    get current() {
      return app?.push.current ?? UNKNOWN;
    },
    subscribe: subscribed((to, observer) => {
      tell([observer], to.push.current);
      return to.push.subscribe(observer);
    }),
  };
  return {
    push,
    signedIn: (userId) => said((to) => to.signedIn(userId)),
    signOut: () => said((to) => to.signOut()),
    askPermission: () => asked((to) => to.askPermission(), "undetermined" as const),
    sync: () => asked((to) => to.sync(), CLOSED),
    onItems: subscribed((to, observer) => to.onItems(observer)),
    onGap: subscribed<void>((to, observer) => to.onGap(observer)),
    fasts: {
      start: (fast) => asked((to) => to.fasts.start(fast), NOT_STARTED),
      move: (id, change) => asked((to) => to.fasts.move(id, change), NOT_STARTED),
      end: (id) => asked((to) => to.fasts.end(id), NOT_STARTED),
      cancel: (id) => asked((to) => to.fasts.cancel(id), NOT_STARTED),
      current: () => asked((to) => to.fasts.current(), NOT_STARTED),
    },
    preferences: {
      read: () => asked((to) => to.preferences.read(), NOT_STARTED),
      change: (change, rev) => asked((to) => to.preferences.change(change, rev), NOT_STARTED),
      pageUrl: () => asked((to) => to.preferences.pageUrl(), NOT_STARTED),
    },
    openings: {
      take: () => app?.openings.take() ?? null,
      subscribe: subscribed((to, observer) => to.openings.subscribe(observer)),
    },
    close: () => {
      isClosed = true;
      closed.give();
      app?.close();
    },
  };
}

/** A promise that is kept from outside, which not every Hermes makes by itself. */
function signal<T>(): { readonly given: Promise<T>; give(value: T): void } {
  let give: (value: T) => void = () => undefined;
  const given = new Promise<T>((resolve) => {
    give = resolve;
  });
  return { given, give: (value) => give(value) };
}

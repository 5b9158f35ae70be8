/** A Fastbell that is there at once, though the one behind it has still to read what it knows. */

import type { Fastbell, Observable, PushState } from "./fastbell.ts";
import { tell } from "./observers.ts";

export interface LaterEnds {
  start(): Promise<Fastbell>;
  /** Resolves when a start that failed so may be tried again. */
  rest(error: unknown): Promise<void>;
}

const UNKNOWN: PushState = { is: "signed_out", owed: 0 };

/**
 * Calls wait for the start, in their order. The start is tried until it succeeds: a phone that was restarted and never
 * unlocked lends no secrets. Until then `push.current` says that nobody is signed in.
 */
export function later({ start, rest }: LaterEnds): Fastbell {
  let app: Fastbell | null = null;
  let isClosed = false;
  const started = (async () => {
    for (;;) {
      try {
        app = await start();
        if (isClosed) {
          app.close();
        }
        return app;
      } catch (error) {
        await rest(error);
      }
    }
  })();
  const subscribed = <T>(subscribe: (to: Fastbell, observer: (value: T) => void) => () => void) => {
    return (observer: (value: T) => void): (() => void) => {
      let isWanted = true;
      let end: () => void = () => {
        isWanted = false;
      };
      void started.then((to) => {
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
    signedIn: async (userId) => (await started).signedIn(userId),
    signOut: async () => (await started).signOut(),
    askPermission: async () => (await started).askPermission(),
    sync: async () => (await started).sync(),
    onItems: subscribed((to, observer) => to.onItems(observer)),
    onGap: subscribed<void>((to, observer) => to.onGap(observer)),
    fasts: {
      start: async (fast) => (await started).fasts.start(fast),
      move: async (id, to) => (await started).fasts.move(id, to),
      end: async (id) => (await started).fasts.end(id),
      cancel: async (id) => (await started).fasts.cancel(id),
      current: async () => (await started).fasts.current(),
    },
    preferences: {
      read: async () => (await started).preferences.read(),
      change: async (to, rev) => (await started).preferences.change(to, rev),
      pageUrl: async () => (await started).preferences.pageUrl(),
    },
    openings: {
      take: () => app?.openings.take() ?? null,
      subscribe: subscribed((to, observer) => to.openings.subscribe(observer)),
    },
    close: () => {
      isClosed = true;
      app?.close();
    },
  };
}

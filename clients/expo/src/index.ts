/** Fastbell for Expo apps: `createFastbell` once, at module scope, and tell it who is signed in. */

import { type Fastbell, LINKS, type Options as CoreOptions, startFastbell } from "./core/fastbell.ts";
import { later } from "./core/later.ts";
import { type Personal, personal } from "./core/person.ts";
import { within } from "./core/within.ts";
import type { ChannelNames } from "./expo/permissions.ts";
import { expoPorts, reinstall } from "./expo/ports.ts";

export type {
  Fast,
  Fastbell,
  Move,
  NewFast,
  Observable,
  Preferences,
  PreferencesChange,
  PushState,
} from "./core/fastbell.ts";
export { type Api, createApi, outcome } from "./core/api.ts";
export type { Opening } from "./core/openings.ts";
export type { Outcome, Problem } from "./core/problems.ts";
export type { Permission } from "./core/registration.ts";
export { type LogItem, MemoryStore, type SyncStore } from "./core/log.ts";
export type { ChannelNames } from "./expo/permissions.ts";

export interface Options extends CoreOptions {
  /** What Android's settings call the three channels; in English by default. */
  readonly channels?: ChannelNames;
}

/** Fastbell, and what only the app can tell it. */
export interface PhoneFastbell extends Fastbell, Personal {
  /** Say which path the person is looking at (`/conversations/ID`), null for none: pushes that lead there stay silent. */
  looksAt(path: string | null): void;
}

const CHANNELS: ChannelNames = { reminders: "Reminders", messages: "Messages", quiet: "Without sound" };
const RETRY_AFTER = 5_000; // milliseconds
const SIGN_OUT_LIMIT = 5_000; // milliseconds

let latest: Fastbell | null = null;

/**
 * Call once, at module scope: a tap that starts the app is missed by anything later. Called again, as a development server
 * does with each change of that module, it takes the place of the earlier one, which is closed.
 */
export function createFastbell(options: Options): PhoneFastbell {
  latest?.close();
  let path: string | null = null;
  const ports = expoPorts({
    channels: options.channels ?? CHANNELS,
    links: options.links ?? LINKS,
    onScreen: () => path,
  });
  const start = async (): Promise<Fastbell> => {
    const app = await startFastbell(options, ports);
    if (reinstall.isNew()) {
      await within(ports.clock, SIGN_OUT_LIMIT, app.signOut()); // whoever the keychain still speaks of
      if (app.push.current.is === "signed_out") {
        reinstall.mark(); // else it waits for the keychain, and the next start says it again
      }
    }
    return app;
  };
  const rest = (error: unknown) => {
    console.warn(`Fastbell could not start, and tries again: ${String(error)}`);
    return new Promise<void>((resolve) => ports.clock.after(RETRY_AFTER, resolve));
  };
  const app = later({ start, rest, clock: ports.clock });
  latest = app;
  return {
    ...personal(app),
    looksAt(next) {
      path = next;
    },
  };
}

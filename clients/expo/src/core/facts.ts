/** What the phone says of itself. Each part by itself: one that fails, or is never answered, stays as it was known last. */

import type { Ports } from "./ports.ts";
import type { Facts } from "./registration.ts";
import { within } from "./within.ts";

export type FactPorts = Pick<Ports, "clock" | "system" | "permissions" | "keys">;

const LIMIT = 5_000; // milliseconds

/** Read all parts, sealed texts' key where the app has any; `last` is what was read before, null at a start. */
export async function readFacts(ports: FactPorts, isSealed: boolean, last: Facts | null): Promise<Facts> {
  const { clock, system, permissions, keys } = ports;
  const [permission, publicKey] = await Promise.all([
    within(clock, LIMIT, asked(() => permissions.read())),
    isSealed ? within(clock, LIMIT, asked(() => keys.publicKey())) : null,
  ]);
  return {
    permission: permission ?? last?.permission ?? "undetermined",
    locale: told(() => system.locale(), last?.locale),
    timeZone: told(() => system.timeZone(), last?.timeZone),
    appVersion: told(() => system.appVersion(), last?.appVersion),
    osVersion: told(() => system.osVersion(), last?.osVersion),
    publicKey: publicKey ?? last?.publicKey ?? null, // without one the server sends generic texts, which is better than none
  };
}

/** Native calls may throw where they should reject. */
async function asked<T>(question: () => Promise<T>): Promise<T> {
  return question();
}

function told(say: () => string | null, last: string | null = null): string | null {
  try {
    return say();
  } catch {
    return last;
  }
}

/** What the core needs of a phone. Each has one adapter in `src/expo/`, and one of a few lines in the tests. */

import type { Debt, DeviceToken, Facts, PutOutcome, Registration } from "./registration.ts";

/** The system's push service. */
export interface Push {
  /** Ask the system for the token, past any memory that a library keeps of a failure. */
  fetchToken(): Promise<DeviceToken>;
  /** End the system's own registration; works without a network. */
  unregister(): Promise<void>;
}

/** Small secrets that survive the process, and are never copied to another phone. */
export interface Vault {
  read(): Promise<string | null>;
  write(value: string): Promise<void>;
}

export interface Clock {
  /** Milliseconds since 1970. */
  now(): number;
  /** Call once after so long; returns what cancels it. */
  after(milliseconds: number, call: () => void): () => void;
}

export interface Random {
  uuid(): string;
  /** At least 32 random bytes, in 32 to 128 printable characters. */
  ticket(): string;
  /** Uniform in [0, 1). */
  chance(): number;
}

/** What the registration machine asks of the server. Failures are values. */
export interface Registrar {
  put(registration: Registration): Promise<PutOutcome>;
  /** Pay a sign-out: true when the server took it; else milliseconds to wait at least. */
  signOut(debt: Debt): Promise<true | { readonly retryAfter: number }>;
}

export interface Phone {
  facts(): Promise<Facts>;
  /** All that must not outlive a person on this phone: what the screen shows, badge, key, log. */
  forgetPerson(): Promise<void>;
}

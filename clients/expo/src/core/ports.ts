/** What the core needs of a phone. Each has one adapter in `src/expo/`, and one of a few lines in the tests. */

import type { Debt, DeviceToken, Facts, Permission, PutOutcome, Registration, Trace } from "./registration.ts";
import type { Shown } from "./screen.ts";

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
  /** Say whose taps these are from now on; null: nobody is signed in. */
  belongTo(userId: string | null): void;
  /** Remove what must not outlive a person on this phone; repeats are harmless, and a failure is tried again. */
  forget(trace: Trace): Promise<void>;
}

/** Named secrets; each is a Vault of its own. */
export interface Secure {
  vault(name: string): Vault;
}

/** Whether the app is in front. */
export interface Foreground {
  readonly isActive: boolean;
  observe(observer: (isActive: boolean) => void): () => void;
}

/** Whether there is a network; "yes" may be wrong, so it is only a reason to try now. */
export interface Network {
  observe(onBack: () => void): () => void;
}

/** What the system says of itself. */
export interface System {
  locale(): string | null;
  timeZone(): string | null;
  appVersion(): string | null;
  osVersion(): string | null;
  /** Something above changed. */
  observe(onChange: () => void): () => void;
}

/** The person's leave to show notifications. */
export interface Permissions {
  read(): Promise<Permission>;
  /** Make the channels, then ask: Android 13 shows no prompt without a channel, and never again. */
  ask(): Promise<Permission>;
}

/** The key that opens sealed texts; its private half never reaches JavaScript. */
export interface Keys {
  publicKey(): Promise<string>;
  forget(): Promise<void>;
}

/** The notification list. */
export interface Screen {
  shown(): Promise<readonly Shown[]>;
  dismiss(identifier: string): Promise<void>;
  dismissAll(): Promise<void>;
}

/** Where taps come from: the listener, and the tap that started the app. */
export interface Taps {
  observe(onTap: (data: unknown) => void): () => void;
}

export interface Ports {
  readonly push: Push & { observe(onToken: (token: DeviceToken) => void): () => void };
  readonly secure: Secure;
  readonly clock: Clock;
  readonly random: Random;
  readonly network: Network;
  readonly foreground: Foreground;
  readonly system: System;
  readonly permissions: Permissions;
  readonly keys: Keys;
  readonly screen: Screen;
  readonly taps: Taps;
  readonly fetch: typeof globalThis.fetch;
}

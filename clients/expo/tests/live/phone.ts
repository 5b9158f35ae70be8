/** A phone in Node: the ports of the core, each a few lines, and the app that is installed on it. */

import { randomBytes, randomUUID } from "node:crypto";

import { type Fastbell, type Options, startFastbell } from "../../src/core/fastbell.ts";
import type { Ports, Vault } from "../../src/core/ports.ts";
import type { Permission } from "../../src/core/registration.ts";
import type { Shown } from "../../src/core/screen.ts";
import { MemoryStore } from "../../src/core/sync.ts";
import type { Run } from "./run.ts";

export class Phone {
  readonly run: Run;
  readonly secrets: Map<string, string>;
  readonly store = new MemoryStore();
  token = newToken();
  permission: Permission = "granted";
  isOnline = true;
  shownLines: Shown[] = [];
  dismissed: string[] = [];
  bearer: string | null = null;
  /** Stands between the app and the network; for trouble on the way. */
  way: (request: Request, send: (request: Request) => Promise<Response>) => Promise<Response> = (request, send) => send(request);
  app!: Fastbell;
  #onToken: (token: string) => void = () => undefined;
  #onBack: () => void = () => undefined;
  #onForeground: (isActive: boolean) => void = () => undefined;
  #onTap: (data: unknown) => void = () => undefined;
  #isActive = true;

  constructor(run: Run, secrets = new Map<string, string>()) {
    this.run = run;
    this.secrets = secrets;
  }

  async open(options: Partial<Options> = {}): Promise<this> {
    const settings = { baseUrl: this.run.api, bearer: async () => this.bearer, store: this.store, ...options };
    this.app = await startFastbell(settings, this.#ports());
    return this;
  }

  async signIn(userId: string): Promise<void> {
    this.bearer = await this.run.bearer(userId);
    await this.app.signedIn(userId);
  }

  rotate(): void {
    this.token = newToken();
    this.#onToken(this.token);
  }

  goOffline(): void {
    this.isOnline = false;
  }

  goOnline(): void {
    this.isOnline = true;
    this.#onBack();
  }

  background(): void {
    this.#isActive = false;
    this.#onForeground(false);
  }

  foreground(): void {
    this.#isActive = true;
    this.#onForeground(true);
  }

  tap(data: unknown): void {
    this.#onTap(data);
  }

  get state() {
    return this.app.push.current.is;
  }

  #ports(): Ports {
    const phone = this;
    const vault = (name: string): Vault => ({
      read: async () => phone.secrets.get(name) ?? null,
      write: async (value) => void phone.secrets.set(name, value),
    });
    return {
      push: {
        fetchToken: async () => ({ provider: "apns", token: phone.token, environment: "production" }),
        unregister: async () => {
          phone.token = newToken();
        },
        observe: (onToken) => {
          phone.#onToken = (token) => onToken({ provider: "apns", token, environment: "production" });
          return () => undefined;
        },
      },
      secure: { vault },
      clock: {
        now: () => Date.now(),
        after: (milliseconds, call) => {
          const timer = setTimeout(call, milliseconds);
          timer.unref();
          return () => clearTimeout(timer);
        },
      },
      random: { uuid: randomUUID, ticket: () => randomBytes(32).toString("base64url"), chance: Math.random },
      network: {
        observe: (onBack) => {
          phone.#onBack = onBack;
          return () => undefined;
        },
      },
      foreground: {
        get isActive() {
          return phone.#isActive;
        },
        observe: (observer) => {
          phone.#onForeground = observer;
          return () => undefined;
        },
      },
      system: {
        locale: () => "de-AT",
        timeZone: () => "Europe/Vienna",
        appVersion: () => "1.0",
        osVersion: () => "26.1",
        observe: () => () => undefined,
      },
      permissions: { read: async () => phone.permission, ask: async () => phone.permission },
      keys: { publicKey: async () => "", forget: async () => undefined },
      screen: {
        shown: async () => phone.shownLines,
        dismiss: async (identifier) => void phone.dismissed.push(identifier),
        dismissAll: async () => {
          phone.shownLines = [];
        },
      },
      taps: {
        observe: (onTap) => {
          phone.#onTap = onTap;
          return () => undefined;
        },
      },
      fetch: async (input, init) => {
        const request = new Request(input, init);
        if (!phone.isOnline) {
          throw new TypeError("no network");
        }
        return phone.way(request, (each) => fetch(each));
      },
    };
  }
}

function newToken(): string {
  return randomBytes(32).toString("hex");
}

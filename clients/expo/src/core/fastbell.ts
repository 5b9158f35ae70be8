/** The phone side of Fastbell, put together: one object for an app, tied to who is signed in. */

import { ours } from "./answers.ts";
import { type Api, createApi, outcome } from "./api.ts";
import { Engine } from "./engine.ts";
import { readFacts } from "./facts.ts";
import { Log, type LogItem, MemoryStore, type SyncStore } from "./log.ts";
import { type Opening, Openings } from "./openings.ts";
import { tell } from "./observers.ts";
import type { Ports, Secure } from "./ports.ts";
import type { Outcome, Problem } from "./problems.ts";
import { createRegistrar } from "./registrar.ts";
import { type Facts, type Permission, type Refusal, type State, type Trace, readable } from "./registration.ts";
import { RegistrationStore } from "./registration_store.ts";
import type { components } from "./schema.d.ts";
import { over } from "./screen.ts";
import { Stream } from "./stream.ts";
import { Sync } from "./sync.ts";
import { within } from "./within.ts";

export type Fast = components["schemas"]["SessionOut"];
export type NewFast = { readonly id: string } & components["schemas"]["StartIn"];
export type Move = components["schemas"]["ChangeIn"];
export type Preferences = components["schemas"]["PreferencesOut"];
/** What is left out stays; `quiet_hours: null` ends them. */
export type PreferencesChange = components["schemas"]["PreferencesPatch"];

export interface Options {
  readonly baseUrl: string;
  /** The bearer token of the person signed in; called again after a 401, once. */
  bearer(): Promise<string | null>;
  readonly appId?: string;
  /** Make a key, so that texts reach this phone sealed. */
  readonly sealed?: boolean;
  /** Where the log is kept; by default nowhere: each start of the app reads it from its start. */
  readonly store?: SyncStore;
  /** What the app's links begin with: its scheme (`fastbell://`), or an https address (`https://fast.example/`). */
  readonly links?: readonly string[];
}

export type PushState =
  | { readonly is: "signed_out"; readonly owed: number }
  | { readonly is: "waiting_for_token"; readonly since: Date; readonly last: string | null }
  | { readonly is: "registering"; readonly tries: number; readonly last: string | null }
  | { readonly is: "registered"; readonly at: Date; readonly permission: Permission; readonly hasKey: boolean }
  | { readonly is: "refused"; readonly problem: Refusal };

export interface Observable<T> {
  readonly current: T;
  subscribe(observer: (value: T) => void): () => void;
}

export interface Fastbell {
  /** Say who is signed in. Another person than before is a change of account. Repeats are harmless. */
  signedIn(userId: string): Promise<void>;
  /** Sign out on this phone at once, network or not; what the backend has to hear is told when there is one. */
  signOut(): Promise<void>;
  readonly push: Observable<PushState>;
  /** Ask the person; the app says when. Channels are made first. */
  askPermission(): Promise<Permission>;
  /** Read the log up to its end; null, or what was in the way. A store that hangs is in the way after ten seconds. */
  sync(): Promise<Problem | null>;
  /** Items once they are stored, each once, until `close`. */
  onItems(observer: (items: readonly LogItem[]) => void): () => void;
  /** Part of the log is gone before it was read: read conversations and fasts from the API. */
  onGap(observer: () => void): () => void;
  readonly fasts: {
    start(fast: NewFast): Promise<Outcome<Fast>>;
    move(id: string, to: Move): Promise<Outcome<Fast>>;
    end(id: string): Promise<Outcome<Fast>>;
    cancel(id: string): Promise<Outcome<Fast>>;
    current(): Promise<Outcome<Fast | null>>;
  };
  readonly preferences: {
    read(): Promise<Outcome<Preferences>>;
    /** Change some, at once, for fasts that are going on as well. With the `rev` that was read: refused with 412 when it is not the newest. */
    change(to: PreferencesChange, rev?: number): Promise<Outcome<Preferences>>;
    /** A link to the hosted page with all of them, for a browser in the app: good once, for minutes. Do not log it. */
    pageUrl(): Promise<Outcome<string>>;
  };
  readonly openings: { take(): Opening | null; subscribe(observer: (opening: Opening) => void): () => void };
  close(): void;
}

const ACKNOWLEDGE_EVERY = 1_000; // milliseconds; within the server's five seconds, and at most one call for a burst
export const LINKS: readonly string[] = ["fastbell://"];

/** Starts that may fail at secrets that cannot be read, before those are lost. A key store that is busy soon has time again. */
export const STARTS_AT_MOST = 5;

const CLOSING = 5_000; // milliseconds
const DESCRIBING = 5_000; // milliseconds

/** What this process knows of a phone: who runs on it, and how many starts have failed. */
const phones = new WeakMap<Secure, { running: Parts | null; failures: number; readonly store: RegistrationStore }>();

/**
 * Start the phone side; goes on where the last process stopped. There is one on a phone, for two would write each other's
 * people into its secrets: an earlier one that was not closed is closed first.
 *
 * Rejects where the phone's secrets cannot be read, which may pass. At the sixth start in a row they are lost, if they can
 * be written at least: the phone then starts signed out, as after `null`.
 */
export async function startFastbell(options: Options, ports: Ports): Promise<Fastbell> {
  const places = [ports.secure.vault("fastbell.registration"), ports.secure.vault("fastbell.registration.2")] as const;
  const known = phones.get(ports.secure) ?? { running: null, failures: 0, store: new RegistrationStore(places, ports.clock) };
  phones.set(ports.secure, known);
  const earlier = known.running;
  const phone = new Parts(options, ports);
  known.running = phone;
  if (earlier !== null) {
    await within(ports.clock, CLOSING, earlier.close());
  }
  try {
    await phone.start(known.store, known.failures >= STARTS_AT_MOST);
  } catch (error) {
    known.failures += 1;
    void phone.close(); // half of it may listen already, and whoever tries again wants one
    throw error;
  }
  known.failures = 0;
  return phone.face();
}

class Parts {
  readonly #options: Options;
  readonly #ports: Ports;
  readonly #api: Api;
  readonly #log: Log;
  readonly #sync: Sync;
  readonly #stream: Stream;
  readonly #openings: Openings;
  readonly #links: readonly string[];
  readonly #itemObservers = new Set<(items: readonly LogItem[]) => void>();
  readonly #gapObservers = new Set<() => void>();
  readonly #endings: (() => void)[] = [];
  #engine!: Engine;
  #acknowledging: (() => void) | null = null;
  #isClosed = false;

  constructor(options: Options, ports: Ports) {
    this.#options = options;
    this.#ports = ports;
    this.#links = options.links ?? LINKS;
    this.#log = new Log(options.store ?? new MemoryStore());
    this.#api = createApi({ baseUrl: options.baseUrl, bearer: () => options.bearer(), fetch: ports.fetch });
    const installationId = () => this.#installationId();
    this.#sync = new Sync({
      api: this.#api,
      log: this.#log,
      clock: ports.clock,
      installationId,
      onItems: (items) => this.#tell(items),
      onGap: () => tell(this.#gapObservers, undefined),
      onRefreshRequired: () => void this.#engine.take({ is: "refresh_required" }),
      onNotRegistered: () => void this.#engine.take({ is: "not_registered" }),
    });
    this.#stream = new Stream({
      api: this.#api,
      baseUrl: options.baseUrl,
      clock: ports.clock,
      random: ports.random,
      log: this.#log,
      installationId,
      onItems: (items) => {
        this.#tell(items);
        this.#acknowledgeSoon();
      },
      onRefused: () => this.#sync.run(),
    });
    const vault = ports.secure.vault("fastbell.openings");
    this.#openings = new Openings({ api: this.#api, vault, clock: ports.clock, random: ports.random, links: this.#links });
  }

  async start(store: RegistrationStore, isGivenUp: boolean): Promise<void> {
    const { push, clock, random, foreground, network, system, taps } = this.#ports;
    const registrar = createRegistrar({
      api: this.#api,
      appId: this.#options.appId ?? null,
      signedIn: () => this.#engine.state.saved.person?.userId ?? null,
    });
    const ends = {
      push,
      store,
      clock,
      random,
      registrar,
      phone: {
        facts: () => readFacts(this.#ports, this.#options.sealed === true, this.#facts()),
        forget: (trace: Trace) => this.#forget(trace),
        belongTo: (userId: string | null) => void this.#openings.belongTo(userId),
      },
      onRegistered: () => this.#comesForward(),
    };
    this.#engine = await Engine.start(ends, isGivenUp);
    if (this.#isClosed) {
      throw new Error("another Fastbell was started on this phone");
    }
    void this.#openings.belongTo(this.#engine.state.saved.person?.userId ?? null);
    const listen = (end: () => void) => this.#endings.push(end); // one by one: the next may fail
    listen(push.observe((token) => void this.#engine.take({ is: "token", token })));
    listen(taps.observe((data) => void this.#openings.tapped(data)));
    listen(network.observe(() => this.#opened()));
    listen(system.observe(() => void this.#engine.describe()));
    listen(foreground.observe((isActive) => (isActive ? this.#opened() : this.#stream.close())));
    this.#opened();
  }

  face(): Fastbell {
    const { client } = this.#api;
    return {
      signedIn: (userId) => this.#engine.take({ is: "signed_in", userId }),
      signOut: () => this.#engine.take({ is: "signed_out" }),
      push: this.#pushState(),
      askPermission: async () => {
        const permission = await this.#ports.permissions.ask().catch(() => null);
        await within(this.#ports.clock, DESCRIBING, this.#engine.describe());
        return permission ?? this.#engine.state.facts.permission;
      },
      sync: () => this.#sync.run(),
      onItems: (observer) => added(this.#itemObservers, observer),
      onGap: (observer) => added(this.#gapObservers, observer),
      fasts: {
        start: ({ id, ...body }) =>
          outcome(client.PUT("/v1/fasting-sessions/{session_id}", { params: { path: { session_id: id } }, body }), ours.fast),
        move: (id, body) =>
          outcome(client.PATCH("/v1/fasting-sessions/{session_id}", { params: { path: { session_id: id } }, body }), ours.fast),
        end: (id) =>
          outcome(client.POST("/v1/fasting-sessions/{session_id}/end", { params: { path: { session_id: id } } }), ours.fast),
        cancel: (id) =>
          outcome(client.POST("/v1/fasting-sessions/{session_id}/cancel", { params: { path: { session_id: id } } }), ours.fast),
        current: async () => {
          const fasts = await this.#activeFasts();
          return fasts.ok ? { ok: true, value: fasts.value[0] ?? null } : fasts;
        },
      },
      preferences: {
        read: () => outcome(client.GET("/v1/notification-preferences"), ours.preferences),
        change: (body, rev) =>
          outcome(
            client.PATCH("/v1/notification-preferences", {
              params: { header: rev === undefined ? {} : { "If-Match": `"${rev}"` } },
              body,
            }),
            ours.preferences,
          ),
        pageUrl: async () => {
          const made = await outcome(client.POST("/v1/preference-links", { body: { for: "app" } }), ours.link);
          return made.ok ? { ok: true, value: made.value.url } : made;
        },
      },
      openings: {
        take: () => this.#openings.take(),
        subscribe: (observer) => this.#openings.subscribe(observer),
      },
      close: () => void this.close(),
    };
  }

  /** End it all; resolves once nothing of it writes to the phone's secrets any more. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#stream.close();
    this.#sync.abandon();
    const told = this.#openings.close();
    this.#endings.splice(0).forEach((end) => end());
    await Promise.all([told, this.#log.abandon(), (this.#engine as Engine | undefined)?.close()]);
  }

  #pushState(): Observable<PushState> {
    const engine = this.#engine;
    return {
      get current() {
        return shown(engine.state);
      },
      subscribe: (observer) => engine.observe((state) => observer(shown(state))),
    };
  }

  /** The app came to the front, or the network came back. Whatever of it fails or hangs keeps nothing else from happening. */
  #opened(): void {
    void this.#engine.describe();
    void this.#engine.take({ is: "opened" });
    void this.#openings.tell();
    this.#comesForward();
  }

  #comesForward(): void {
    if (this.#installationId() === null || !this.#ports.foreground.isActive) {
      return;
    }
    this.#stream.open();
    void this.#sync
      .run()
      .then((problem) => (problem === null ? this.#tidyScreen() : undefined))
      .catch(() => undefined); // a screen that does not tell what it shows
  }

  #facts(): Facts | null {
    return (this.#engine as Engine | undefined)?.state.facts ?? null;
  }

  async #forget(trace: Trace): Promise<void> {
    const { screen, keys, push } = this.#ports;
    switch (trace) {
      case "log":
        this.#stream.close();
        this.#sync.abandon();
        return this.#log.empty();
      case "screen":
        return screen.dismissAll();
      case "key":
        return keys.forget();
      case "token":
        return push.unregister();
    }
  }

  /** Take back lines whose fast is over. Conversations stay: what was read, only the app knows. */
  async #tidyScreen(): Promise<void> {
    const fasts = await this.#activeFasts();
    if (!fasts.ok) {
      return;
    }
    const shownLines = await this.#ports.screen.shown();
    const fastLines = { activeFasts: new Set(fasts.value.map((fast) => fast.id)), unread: null };
    for (const identifier of over(shownLines, fastLines, this.#links)) {
      await this.#ports.screen.dismiss(identifier);
    }
  }

  async #activeFasts(): Promise<Outcome<Fast[]>> {
    const page = await outcome(this.#api.client.GET("/v1/fasting-sessions"), ours.fasts);
    return page.ok ? { ok: true, value: page.value.items.filter((fast) => fast.status === "active") } : page;
  }

  #installationId(): string | null {
    return this.#isClosed ? null : readable(this.#engine.state.saved);
  }

  #tell(items: readonly LogItem[]): void {
    if (items.length > 0) {
      tell(this.#itemObservers, items);
    }
  }

  #acknowledgeSoon(): void {
    this.#acknowledging ??= this.#ports.clock.after(ACKNOWLEDGE_EVERY, () => {
      this.#acknowledging = null;
      void this.#sync.run();
    });
  }
}

function shown({ phase, saved, facts }: State): PushState {
  switch (phase.is) {
    case "signed_out":
      return { is: "signed_out", owed: saved.owed.length };
    case "waiting_for_token":
      return { is: "waiting_for_token", since: new Date(phase.since), last: phase.last };
    case "registering":
      return { is: "registering", tries: phase.tries, last: phase.last };
    case "registered": {
      const at = new Date(saved.person?.registeredAt ?? 0);
      return { is: "registered", at, permission: facts.permission, hasKey: facts.publicKey !== null };
    }
    case "refused":
      return { is: "refused", problem: phase.problem };
  }
}

function added<T>(observers: Set<T>, observer: T): () => void {
  observers.add(observer);
  return () => observers.delete(observer);
}

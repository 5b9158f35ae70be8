/** A phone for the whole of the core, of which a test lets one part fail. */

import type { Ports } from "../../src/core/ports.ts";
import { type LogItem, MemoryStore } from "../../src/core/log.ts";

export const ID = "5f0c3c0e-6d5b-4c6c-9d59-3f0f0a4f7a01";

/** A phone with a network for registrations, whose bodies it keeps, for sign-outs, and for a log of three items. */
export class Phone {
  readonly kept = new Map<string, string>();
  readonly bodies: { public_key: string | null }[] = [];
  listeners = 0;
  onTap: (data: unknown) => void = () => undefined;
  onForeground: (isActive: boolean) => void = () => undefined;
  keys = 0;
  key: () => Promise<string> = async () => `key-${this.keys}`;
  permission: () => Promise<"granted"> = async () => "granted";
  /** Stands between the app and the network; null: what the backend says. */
  way: (request: Request, path: string) => Response | Promise<Response> | null = () => null;
  /** What can be read of the secrets. */
  read: (name: string) => Promise<string | null> = async (name) => this.kept.get(name) ?? null;
  write: (name: string, value: string) => Promise<void> = async (name, value) => void this.kept.set(name, value);
  now = 0;
  timers: { readonly milliseconds: number; readonly call: () => void }[] = [];
  paid = 0;

  ports(): Ports {
    const listens = () => {
      this.listeners += 1;
      return () => {
        this.listeners -= 1;
      };
    };
    return {
      push: {
        fetchToken: async () => ({ provider: "fcm", token: "t", environment: "production" }),
        unregister: async () => undefined,
        observe: listens,
      },
      secure: {
        vault: (name) => ({ read: () => this.read(name), write: (value) => this.write(name, value) }),
      },
      clock: {
        now: () => this.now,
        after: (milliseconds, call) => {
          const timer = { milliseconds, call };
          this.timers.push(timer);
          return () => {
            this.timers = this.timers.filter((each) => each !== timer);
          };
        },
      },
      random: { uuid: () => ID, ticket: () => "t".repeat(32), chance: () => 0 },
      network: { observe: listens },
      foreground: {
        isActive: true,
        observe: (observer) => {
          this.onForeground = observer;
          return listens();
        },
      },
      system: { locale: () => null, timeZone: () => null, appVersion: () => null, osVersion: () => null, observe: listens },
      permissions: { read: () => this.permission(), ask: () => this.permission() },
      keys: {
        publicKey: () => this.key(),
        forget: async () => {
          this.keys += 1;
        },
      },
      screen: { shown: async () => [], dismiss: async () => undefined, dismissAll: async () => undefined },
      taps: {
        observe: (observer) => {
          this.onTap = observer;
          return listens();
        },
      },
      fetch: async (input, init) => {
        const request = new Request(input, init);
        const { pathname, searchParams } = new URL(request.url);
        const answer = await this.way(request, pathname);
        if (answer !== null) {
          return answer;
        }
        if (pathname === "/v1/sync") {
          return Response.json(pageOf(request.headers.get("authorization") ?? "", Number(searchParams.get("after"))));
        }
        if (pathname === "/v1/sign-outs") {
          this.paid += 1;
          return new Response(null, { status: 204, headers: { fastbell: "1" } });
        }
        if (request.method !== "PUT") {
          throw new TypeError("no network");
        }
        this.bodies.push((await request.json()) as { public_key: string | null });
        return Response.json({ installation_id: ID });
      },
    };
  }
}

/** Let so many milliseconds pass for those that wait for exactly so many. */
export function passes(phone: Phone, milliseconds: number): void {
  const due = phone.timers.filter((each) => each.milliseconds === milliseconds);
  phone.timers = phone.timers.filter((each) => !due.includes(each));
  due.forEach(({ call }) => call());
}

export function pageOf(bearer: string, after: number): object {
  const items = [1, 2, 3].filter((seq) => seq > after).map((seq) => ({ seq, kind: "message", id: `m${seq}`, body: `${bearer}'s ${seq}` }));
  return { items, next_cursor: Math.max(3, after), has_more: false, refresh_required: false };
}

/** A log on a disk that, for a while, cannot be emptied. */
export class Disk extends MemoryStore {
  emptying: () => Promise<void> = async () => undefined;

  override async reset(next: number): Promise<void> {
    await this.emptying();
    await super.reset(next);
  }

  bodies(): unknown[] {
    return [...this.items.values()].map((item: LogItem) => "body" in item && item.body);
  }
}

export const OPTIONS = { baseUrl: "http://127.0.0.1:1", bearer: async () => "bearer", sealed: true };

export async function until(isTrue: () => boolean): Promise<void> {
  while (!isTrue()) {
    await new Promise(setImmediate);
  }
}

export const bodiesOf = (person: string) => [1, 2, 3].map((seq) => `Bearer ${person}'s ${seq}`);

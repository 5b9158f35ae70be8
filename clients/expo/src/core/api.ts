/** The API of the backend, as generated from its own document. No call throws: what went wrong is a value. */

import createClient, { type Client } from "openapi-fetch";

import { type IsOurs, isObject, isOurAnswer } from "./answers.ts";
import { type Outcome, problemOf, unavailable } from "./problems.ts";
import type { paths } from "./schema.d.ts";

export interface ApiOptions {
  readonly baseUrl: string;
  /** The bearer token of the person signed in, null for nobody; asked again, once, after a 401. */
  bearer(): Promise<string | null>;
  readonly fetch?: typeof globalThis.fetch;
  /** Milliseconds until an answer is given up, the app's answer to `bearer` included. */
  readonly patience?: number;
}

export interface Api {
  readonly client: Client<paths>;
  /** The same without a bearer token, and without asking for one: for what is proven by a ticket. */
  readonly anonymous: Client<paths>;
  /** Fetch with the bearer token; for what is no JSON. */
  readonly fetch: (request: Request) => Promise<Response>;
}

const PATIENCE = 30_000;

export function createApi(options: ApiOptions): Api {
  const plain = options.fetch ?? globalThis.fetch;

  const patience = options.patience ?? PATIENCE;

  /** The app may wait for a network of its own here, or for ever. */
  async function bearer(): Promise<string | null> {
    const given = options.bearer();
    let cancel: () => void = () => undefined;
    const late = new Promise<never>((_, reject) => {
      const timer = setTimeout(() => reject(new Error("the app gave no bearer token")), patience);
      cancel = () => clearTimeout(timer);
    });
    return Promise.race([given, late]).finally(() => cancel());
  }

  async function signed(request: Request): Promise<Response> {
    const again = request.clone();
    const response = await plain(withBearer(request, await bearer()));
    return response.status === 401 ? plain(withBearer(again, await bearer())) : response;
  }

  function clientOf(fetch: (request: Request) => Promise<Response>): Client<paths> {
    return createClient<paths>({
      baseUrl: options.baseUrl,
      fetch: async (request) => {
        const signal = AbortSignal.timeout(patience);
        return whole(await fetch(new Request(request, { signal })), signal);
      },
    });
  }

  return { client: clientOf(signed), anonymous: clientOf((request) => plain(request)), fetch: signed };
}

/** Wait for a call of `client` and take apart what it came to. A 2xx that is not `isOurs` says that Fastbell was not reached. */
export async function outcome<T>(
  call: Promise<{ data?: T; error?: unknown; response: Response }>,
  isOurs: IsOurs = isObject,
): Promise<Outcome<T>> {
  try {
    const { data, error, response } = await call;
    if (!response.ok) {
      return { ok: false, problem: problemOf(response, error) };
    }
    return isOurAnswer(response, data, isOurs) ? { ok: true, value: data as T } : { ok: false, problem: unavailable(response) };
  } catch (error) {
    if (error instanceof SyntaxError) {
      return { ok: false, problem: { is: "unavailable", status: 200, retryAfter: 0 } }; // a 2xx that is no JSON
    }
    return { ok: false, problem: { is: "offline", detail: error instanceof Error ? error.message : String(error) } };
  }
}

/**
 * The answer with its body, which is read until `signal` says that it takes too long. On iOS nobody else says so: where a body
 * breaks off, or is given up, Expo's fetch neither gives it nor fails (`text` in its NativeResponse waits for the end alone).
 */
async function whole(response: Response, signal: AbortSignal): Promise<Response> {
  const late = new Promise<never>((_, reject) => {
    const fail = () => reject(new Error("the answer broke off"));
    signal.addEventListener("abort", fail);
    if (signal.aborted) {
      fail();
    }
  });
  const text = await Promise.race([response.text(), late]);
  const { status, statusText, headers } = response;
  return new Response(text === "" ? null : text, { status, statusText, headers });
}

function withBearer(request: Request, bearer: string | null): Request {
  if (bearer !== null) {
    request.headers.set("authorization", `Bearer ${bearer}`);
  }
  return request;
}

/** A backend for sync, stream and openings on a real socket: a log, and trouble on demand. */

import { type IncomingMessage, type ServerResponse, createServer } from "node:http";
import type { AddressInfo } from "node:net";

import { createApi } from "../../src/core/api.ts";
import type { LogItem } from "../../src/core/sync.ts";

export class Backend {
  readonly log: LogItem[] = [];
  readonly acknowledged: number[] = [];
  readonly opened: string[] = [];
  readonly bearers: string[] = [];
  horizon = 0;
  trouble: ((request: IncomingMessage, response: ServerResponse) => boolean) | null = null;
  streamText: ((after: number) => string) | null = null;
  readonly #server = createServer((request, response) => this.#serve(request, response));
  url = "";

  async start(): Promise<this> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    this.url = `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
    return this;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  write(...bodies: string[]): void {
    for (const body of bodies) {
      const seq = (this.log.at(-1)?.seq ?? this.horizon) + 1;
      this.log.push({ seq, kind: "message", id: `m${seq}`, body } as LogItem);
    }
  }

  api(bearer: () => Promise<string | null> = async () => "bearer", patience = 30_000) {
    return createApi({ baseUrl: this.url, bearer, patience });
  }

  #serve(request: IncomingMessage, response: ServerResponse): void {
    const url = new URL(request.url ?? "/", this.url);
    this.bearers.push(request.headers.authorization ?? "");
    if (this.trouble?.(request, response)) {
      return;
    }
    const after = Number(url.searchParams.get("after"));
    if (url.pathname.endsWith("/opened")) {
      this.opened.push(url.pathname.split("/").at(-2)!);
      nothing(response);
    } else if (url.pathname === "/v1/stream") {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write(": hello\nretry: 5\n\n");
      response.write(this.streamText?.(after) ?? "");
      response.end();
    } else {
      this.acknowledged.push(after);
      if (after > 0 && after < this.horizon) {
        problem(response, 410, { type: "urn:fastbell:problem:cursor-too-old", detail: "too old", next_cursor: this.horizon });
        return;
      }
      const found = this.log.filter((item) => item.seq > after);
      const items = found.slice(0, Number(url.searchParams.get("limit")));
      const next_cursor = items.at(-1)?.seq ?? Math.max(after, this.horizon);
      json(response, 200, { items, next_cursor, has_more: found.length > items.length, refresh_required: false });
    }
  }
}

/** Fastbell's own 204, known by its header. */
export function nothing(response: ServerResponse): void {
  response.writeHead(204, { fastbell: "1" }).end();
}

export function problem(response: ServerResponse, status: number, body: object): void {
  response.writeHead(status, { "content-type": "application/problem+json" }).end(JSON.stringify(body));
}

export function json(response: ServerResponse, status: number, body: object): void {
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
}

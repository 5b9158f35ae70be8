/** A local run of everything, on ports of its own, for the tests of this folder. */

import { type ChildProcess, execFile, spawn } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { availableParallelism, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const ROOT = fileURLToPath(new URL("../../../../", import.meta.url));
const PYTHON = join(ROOT, ".venv/bin/python");
const NAMES = ["API_PORT", "TEMPORAL_PORT", "TEMPORAL_UI_PORT", "METRICS_PORT", "SIMULATOR_PORT"];

export interface Line {
  title: string;
  body: string;
  data: Record<string, string>;
  times_received: number;
}

export class Run {
  readonly api: string;
  readonly simulator: string;
  readonly #environment: NodeJS.ProcessEnv;
  readonly #process: ChildProcess;
  #said = "";

  private constructor(environment: NodeJS.ProcessEnv) {
    this.#environment = environment;
    this.api = `http://127.0.0.1:${environment["API_PORT"]}`;
    this.simulator = `http://127.0.0.1:${environment["SIMULATOR_PORT"]}`;
    this.#process = spawn(PYTHON, ["local.py"], { cwd: ROOT, env: environment, stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [this.#process.stdout, this.#process.stderr]) {
      stream?.on("data", (text: Buffer) => {
        this.#said += text.toString();
      });
    }
  }

  static async start(): Promise<Run> {
    const first = await freePorts(NAMES.length + 3); // the simulator has three more
    const ports = NAMES.map((name, place) => [name, String(first + place)]);
    const kept = Object.entries(process.env).filter(([name]) => ["PATH", "HOME", "LANG"].includes(name));
    const environment = Object.fromEntries([...kept, ...ports]) as unknown as NodeJS.ProcessEnv;
    environment["RUN_DIR"] = await mkdtemp(join(tmpdir(), "fastbell-expo-"));
    const run = new Run(environment);
    const ready = () => fetch(`${run.api}/readyz`).then((answer) => answer.ok, () => false);
    await until(async () => {
      if (run.#process.exitCode !== null) {
        throw new Error(run.#said);
      }
      return ready();
    }, 120_000);
    return run;
  }

  async stop(): Promise<void> {
    const ended = new Promise((resolve) => this.#process.once("exit", resolve));
    this.#process.kill("SIGINT");
    await ended;
    await rm(this.#environment["RUN_DIR"]!, { recursive: true, force: true });
  }

  /** A bearer token for somebody. */
  async bearer(userId: string, ...scopes: string[]): Promise<string> {
    const more = scopes.flatMap((scope) => ["--scope", scope]);
    const ran = promisify(execFile)(PYTHON, ["cli.py", "token", "--user", userId, ...more], {
      cwd: ROOT,
      env: this.#environment,
    });
    return (await ran).stdout.trim();
  }

  /** Run SQL that nobody's API has. */
  async sql(statement: string): Promise<void> {
    const settings = await readFile(join(this.#environment["RUN_DIR"]!, "run.env"), "utf8");
    const script = `
import asyncio, sys
from sqlalchemy import text
from db.engine import make_engine
async def main():
    engine = make_engine(sys.argv[1])
    async with engine.begin() as db:
        await db.execute(text(sys.argv[2]))
    await engine.dispose()
asyncio.run(main())`;
    const url = /^DATABASE_URL=(.*)$/m.exec(settings)![1]!.replace(/^['"]|['"]$/g, "");
    await promisify(execFile)(PYTHON, ["-c", script, url, statement], { cwd: ROOT, env: this.#environment });
  }

  /** What a phone's screen shows, newest line first. */
  async screen(token: string): Promise<Line[]> {
    const answer = await fetch(`${this.simulator}/phones/${token}`);
    return answer.ok ? ((await answer.json()) as { screen: Line[] }).screen : [];
  }

  async fault(fields: object): Promise<void> {
    const answer = await fetch(`${this.simulator}/faults`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(fields),
    });
    if (!answer.ok) {
      throw new Error(await answer.text());
    }
  }

  async call(bearer: string, method: string, path: string, body?: object): Promise<Response> {
    const init: RequestInit = { method, headers: { authorization: `Bearer ${bearer}`, "content-type": "application/json" } };
    return fetch(this.api + path, body === undefined ? init : { ...init, body: JSON.stringify(body) });
  }
}

/** Wait until a check holds; fails after `limit` milliseconds, up to three times as many where more wait for each core. */
export async function until(check: () => boolean | Promise<boolean>, limit = 20_000): Promise<void> {
  const crowding = Math.min(3, Math.max(1, (loadavg()[0] ?? 0) / availableParallelism()));
  const deadline = Date.now() + limit * crowding;
  while (!(await check())) {
    if (Date.now() > deadline) {
      throw new Error(`not within ${limit} ms: ${check}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Find so many free ports in a row, below those that the system gives to connections. */
async function freePorts(count: number): Promise<number> {
  for (;;) {
    const first = 20_000 + Math.floor(Math.random() * 12_000);
    const servers = await Promise.all(Array.from({ length: count }, (_, place) => listening(first + place)));
    await Promise.all(servers.map((server) => server?.close()));
    if (servers.every((server) => server !== null)) {
      return first;
    }
  }
}

function listening(port: number): Promise<ReturnType<typeof createServer> | null> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(null));
    server.listen(port, "127.0.0.1", () => resolve(server));
  });
}

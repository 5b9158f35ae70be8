/** What `npm pack` gives, installed into an empty app. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const PACKAGE = fileURLToPath(new URL("../../", import.meta.url));
const TSC = join(PACKAGE, "node_modules/typescript/bin/tsc");
const NPM = join(dirname(process.execPath), "../lib/node_modules/npm/bin/npm-cli.js"); // where every Node has it
const APP = `
import { createFastbell, type PushState } from "@fastbell/expo";
import { syncInBackground } from "@fastbell/expo/background";
import { FastbellProvider, type Changeable, useCurrentFast, useItems, usePreferences, usePushState } from "@fastbell/expo/react";
import { nativeIntent, useOpenings } from "@fastbell/expo/router";
import { openLog } from "@fastbell/expo/sqlite";

export const fastbell = createFastbell({ baseUrl: "https://fast.example", bearer: async () => null, store: openLog() });
syncInBackground(fastbell);
export const state: PushState = fastbell.push.current;
export const redirectSystemPath = nativeIntent;
export const page: Promise<string | null> = (null as unknown as Changeable).pageUrl();
// @ts-expect-error: there is no such option
createFastbell({ baseUrl: "https://fast.example", bearer: async () => null, sealde: true });
export { FastbellProvider, useCurrentFast, useItems, useOpenings, usePreferences, usePushState };
`;

/** What the README leaves to the app. */
const SESSION = `
export const session = { bearer: async (): Promise<string | null> => null, current: (): { id: string } | null => null };
export const useUser = () => session.current();
`;

const run = promisify(execFile);
let root = "";
after(() => rm(root, { recursive: true, force: true }));

test("the package and the steps of its README type-check in an empty app; it has its native parts, and carries no tests", async () => {
  root = await mkdtemp(join(PACKAGE, ".prebuild-")); // beneath node_modules, where peers are found
  await run(process.execPath, [NPM, "pack", "--pack-destination", root, "--ignore-scripts"], { cwd: PACKAGE });
  const [archive] = (await readdir(root)).filter((name) => name.endsWith(".tgz"));
  const folder = join(root, "node_modules/@fastbell/expo");
  await mkdir(folder, { recursive: true });
  await run("tar", ["-xzf", join(root, archive ?? ""), "-C", folder, "--strip-components=1"]);
  await cp(join(PACKAGE, "example/tsconfig.json"), join(root, "tsconfig.json"));
  await writeFile(join(root, "app.ts"), APP);
  await writeFile(join(root, "session.ts"), SESSION);
  await mkdir(join(root, "app"));
  const readme = await readFile(join(folder, "README.md"), "utf8");
  const steps = [...readme.matchAll(/```tsx?\n\/\/ (\S+?)(?:,[^\n]*)?\n(.*?)```/gs)];
  assert.deepEqual(steps.map(([, name]) => name), ["links.ts", "fastbell.ts", "index.ts", "app/_layout.tsx", "app/+native-intent.ts"]);
  for (const [, name, code] of steps) {
    await writeFile(join(root, name ?? ""), code ?? "");
  }

  await run(process.execPath, [TSC, "--noEmit", "-p", root]);

  const files = (await readdir(folder, { recursive: true })).filter((name) => !name.startsWith("build"));
  for (const needed of ["app.plugin.js", "expo-module.config.json", "ios/Keys.swift", "ios/service/Sealed.swift", "plugin/build/index.js"]) {
    assert.ok(files.includes(needed), needed);
  }
  assert.deepEqual(files.filter((name) => /tests|checks|example|node_modules|\.oxlintrc/.test(name)), []);
});

test("whatever the package imports it names, as a dependency or as a peer", async () => {
  const { dependencies, peerDependencies } = JSON.parse(await readFile(join(PACKAGE, "package.json"), "utf8"));
  const named = new Set([...Object.keys(dependencies), ...Object.keys(peerDependencies)]);
  const imported = new Set<string>();
  for (const folder of ["build", "plugin/build"]) {
    for (const name of await readdir(join(PACKAGE, folder), { recursive: true })) {
      if (name.endsWith(".js") || name.endsWith(".d.ts")) {
        const text = await readFile(join(PACKAGE, folder, name), "utf8");
        for (const [, specifier] of text.matchAll(/(?:from|import) "([^"]+)"/g)) {
          imported.add(specifier ?? "");
        }
      }
    }
  }
  const packages = [...imported].filter((each) => !/^(\.|node:)/.test(each)).map((each) => each.split("/").slice(0, each.startsWith("@") ? 2 : 1).join("/"));
  assert.ok(packages.includes("expo-notifications"));
  assert.deepEqual(packages.filter((each) => !named.has(each)), []);
});

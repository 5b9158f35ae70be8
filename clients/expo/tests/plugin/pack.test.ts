/** What `npm pack` gives, installed into an empty app. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
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
import { FastbellProvider, usePushState } from "@fastbell/expo/react";
import { nativeIntent, useOpenings } from "@fastbell/expo/router";
import { openLog } from "@fastbell/expo/sqlite";

export const fastbell = createFastbell({ baseUrl: "https://fast.example", bearer: async () => null, store: openLog() });
syncInBackground(fastbell);
export const state: PushState = fastbell.push.current;
export const redirectSystemPath = nativeIntent;
// @ts-expect-error: there is no such option
createFastbell({ baseUrl: "https://fast.example", bearer: async () => null, sealde: true });
export { FastbellProvider, useOpenings, usePushState };
`;

const run = promisify(execFile);
let root = "";
after(() => rm(root, { recursive: true, force: true }));

test("the package type-checks in an empty app, has its native parts, and carries no tests", async () => {
  root = await mkdtemp(join(PACKAGE, ".prebuild-")); // beneath node_modules, where peers are found
  await run(process.execPath, [NPM, "pack", "--pack-destination", root, "--ignore-scripts"], { cwd: PACKAGE });
  const [archive] = (await readdir(root)).filter((name) => name.endsWith(".tgz"));
  const folder = join(root, "node_modules/@fastbell/expo");
  await mkdir(folder, { recursive: true });
  await run("tar", ["-xzf", join(root, archive ?? ""), "-C", folder, "--strip-components=1"]);
  await cp(join(PACKAGE, "example/tsconfig.json"), join(root, "tsconfig.json"));
  await writeFile(join(root, "app.ts"), APP);

  await run(process.execPath, [TSC, "--noEmit", "-p", root]);

  const files = (await readdir(folder, { recursive: true })).filter((name) => !name.startsWith("build"));
  for (const needed of ["app.plugin.js", "expo-module.config.json", "ios/Keys.swift", "ios/service/Sealed.swift", "plugin/build/index.js"]) {
    assert.ok(files.includes(needed), needed);
  }
  assert.deepEqual(files.filter((name) => /tests|checks|example|node_modules|\.oxlintrc/.test(name)), []);
});

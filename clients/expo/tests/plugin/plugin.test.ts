/** The config plugin against the real `expo prebuild`, whose template is inside the `expo` package: nothing is downloaded. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { chosen } from "../../plugin/src/options.ts";

const PACKAGE = fileURLToPath(new URL("../../", import.meta.url));
const EXPO = join(PACKAGE, "node_modules/expo/bin/cli");
const NODE_FOLDER = dirname(process.execPath);
const ID = "com.example.bells";
const projects: string[] = [];

/** A new app with such plugins, and its native projects. */
function app(...plugins: unknown[]): Promise<string> {
  return appOf({ plugins });
}

async function appOf(more: object): Promise<string> {
  const root = await mkdtemp(join(PACKAGE, ".prebuild-")); // beneath node_modules, where the app finds its packages
  projects.push(root);
  await cp(join(PACKAGE, "example/package.json"), join(root, "package.json"));
  await says(root, more);
  await prebuild(root);
  return root;
}

/** What the app says of itself, in `app.json`. */
async function says(root: string, more: object): Promise<void> {
  const expo = { name: "Bells", slug: "bells", version: "1.2.3", ios: { bundleIdentifier: ID }, android: { package: ID }, ...more };
  await writeFile(join(root, "app.json"), JSON.stringify({ expo }));
}

async function prebuild(root: string, ...more: string[]): Promise<string> {
  const env = { ...process.env, PATH: `${NODE_FOLDER}:${process.env["PATH"]}`, CI: "1", EXPO_OFFLINE: "1", EXPO_NO_TELEMETRY: "1" };
  const { stdout, stderr } = await promisify(execFile)(process.execPath, [EXPO, "prebuild", "--no-install", ...more], { cwd: root, env });
  return stdout + stderr;
}

/** Each file of the native projects, by a digest of its bytes. */
async function bytes(root: string, ...platforms: string[]): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for (const platform of platforms.length > 0 ? platforms : ["ios", "android"]) {
    for (const entry of await readdir(join(root, platform), { recursive: true, withFileTypes: true })) {
      if (entry.isFile()) {
        const path = join(entry.parentPath, entry.name);
        found[relative(root, path)] = createHash("sha256").update(await readFile(path)).digest("hex");
      }
    }
  }
  return found;
}

const read = (root: string, path: string) => readFile(join(root, path), "utf8");
const strings = (plist: string, key: string) => {
  const [, list] = new RegExp(`<key>${key}</key>\\s*<array>(.*?)</array>`, "s").exec(plist) ?? [];
  return [...(list ?? "").matchAll(/<string>(.*?)<\/string>/g)].map(([, value]) => value);
};

let sealed = "";
before(async () => {
  sealed = await app("expo-notifications", "@fastbell/expo");
});
after(() => Promise.all(projects.map((root) => rm(root, { recursive: true, force: true }))));

test("the extension is a target of the app, with its sources, its name and its system", async () => {
  const project = await read(sealed, "ios/Bells.xcodeproj/project.pbxproj");

  assert.equal(project.match(/isa = PBXNativeTarget;/g)?.length, 2);
  assert.match(project, /productType = "com.apple.product-type.app-extension"/);
  assert.match(project, /PRODUCT_BUNDLE_IDENTIFIER = "com.example.bells.FastbellService"/);
  assert.match(project, /IPHONEOS_DEPLOYMENT_TARGET = 17.0/);
  assert.match(project, /MARKETING_VERSION = "1.2.3"/);
  assert.match(project, /FastbellService.appex in Copy Files/);
  for (const source of ["NotificationService.swift", "Sealed.swift", "Keys.swift"]) {
    assert.match(project, new RegExp(`${source.replace(".", "\\.")} in Sources`));
    assert.ok((await read(sealed, `ios/FastbellService/${source}`)).length > 0);
  }
  assert.doesNotMatch(project, /undefined/);
  assert.doesNotMatch(project, /entitlements in Resources/);
});

test("app and extension share one keychain group, and the app's own stays the first", async () => {
  const ours = `$(AppIdentifierPrefix)${ID}.fastbell`;
  const theApp = await read(sealed, "ios/Bells/Bells.entitlements");
  const theExtension = await read(sealed, "ios/FastbellService/FastbellService.entitlements");

  assert.deepEqual(strings(theApp, "keychain-access-groups"), [`$(AppIdentifierPrefix)${ID}`, ours]);
  assert.deepEqual(strings(theExtension, "keychain-access-groups"), [ours]);
  assert.match(theApp, /<key>aps-environment<\/key>\s*<string>development<\/string>/);
  for (const path of ["ios/Bells/Info.plist", "ios/FastbellService/FastbellService-Info.plist"]) {
    assert.ok((await read(sealed, path)).includes(`<string>${ours}</string>`), path);
  }
});

test("an app's own keychain groups stay, in their order, though they end as ours do, and the next identifier takes the place of the last", async () => {
  const of = (name: string) => `$(AppIdentifierPrefix)com.example.${name}`;
  const plugins = ["@fastbell/expo"];
  const entitlements = { "keychain-access-groups": [of("fastbell"), of("other.fastbell"), of("other"), of("shared")] };
  const root = await appOf({ plugins, ios: { bundleIdentifier: "com.example.fastbell", entitlements } });
  const groups = async () => strings(await read(root, "ios/Bells/Bells.entitlements"), "keychain-access-groups");
  assert.deepEqual(await groups(), [...entitlements["keychain-access-groups"], of("fastbell.fastbell")]);

  await says(root, { plugins, ios: { bundleIdentifier: "com.example.fastbell.fastbell" } });
  await prebuild(root, "--no-clean");
  const others = [of("other.fastbell"), of("other"), of("shared")];
  assert.deepEqual(await groups(), [of("fastbell.fastbell"), ...others, of("fastbell.fastbell.fastbell")]);
});

test("the Android service stands before that of expo-notifications, and what Firebase shows is in our channel", async () => {
  const manifest = await read(sealed, "android/app/src/main/AndroidManifest.xml");

  assert.match(
    manifest,
    /<service android:name="fastbell.expo.FastbellMessagingService" android:exported="false">\s*<intent-filter>\s*<action android:name="com.google.firebase.MESSAGING_EVENT"\/>/,
  );
  assert.match(manifest, /default_notification_channel_id" android:value="reminders"/);
});

test("a prebuild over an earlier one, and one from nothing, give the same bytes", async () => {
  const first = await bytes(sealed);
  await prebuild(sealed);
  assert.deepEqual(await bytes(sealed), first);
  await prebuild(sealed, "--no-clean"); // as apps do that keep their native projects
  assert.deepEqual(await bytes(sealed), first);

  for (const platform of ["ios", "android"]) {
    await rm(join(sealed, platform), { recursive: true });
  }
  await prebuild(sealed);
  assert.deepEqual(await bytes(sealed), first);
});

test("a prebuild over that of an earlier version and another identifier brings the extension up to date, and makes no second", async () => {
  const plugins = ["expo-notifications", "@fastbell/expo"];
  const root = await app(...plugins);
  const other = "com.example.other";
  await says(root, { plugins, version: "2.0.0", ios: { bundleIdentifier: other, buildNumber: "8" } });

  await prebuild(root, "--no-clean");

  const project = await read(root, "ios/Bells.xcodeproj/project.pbxproj");
  assert.equal(project.match(/isa = PBXNativeTarget;/g)?.length, 2);
  assert.equal(project.match(/FastbellService.appex in Copy Files/g)?.length, 2); // where it is made, and where it is used
  assert.equal(project.match(/PRODUCT_BUNDLE_IDENTIFIER = "com.example.other.FastbellService"/g)?.length, 2); // debug and release
  assert.equal(project.match(/MARKETING_VERSION = "2.0.0"/g)?.length, 2);
  assert.equal(project.match(/CURRENT_PROJECT_VERSION = "8"/g)?.length, 2);
  const groups = strings(await read(root, "ios/Bells/Bells.entitlements"), "keychain-access-groups");
  assert.deepEqual(groups, [`$(AppIdentifierPrefix)${other}`, `$(AppIdentifierPrefix)${other}.fastbell`]);
  const manifest = await read(root, "android/app/src/main/AndroidManifest.xml");
  assert.equal(manifest.match(/FastbellMessagingService/g)?.length, 1);
});

test("an extension of an earlier prebuild that is not to be there any more is refused, and a clean prebuild has none", async () => {
  const root = await appOf({ plugins: ["@fastbell/expo"], platforms: ["ios"] });
  const nowSays = (options: object) => says(root, { plugins: [["@fastbell/expo", options]], platforms: ["ios"] });
  const first = await bytes(root, "ios");
  for (const options of [{ serviceName: "Ringer" }, { sealed: false }]) {
    await nowSays(options);
    await assert.rejects(prebuild(root, "--no-clean"), /ios\/FastbellService is the extension of an earlier prebuild.*--clean/s);
    assert.deepEqual(await bytes(root, "ios"), first);
  }
  await prebuild(root, "--clean");
  assert.doesNotMatch(await read(root, "ios/Bells.xcodeproj/project.pbxproj"), /app-extension/);
});

test("an app without sealed texts has neither extension nor group nor service", async () => {
  const root = await app(["@fastbell/expo", { sealed: false }]);

  assert.doesNotMatch(await read(root, "ios/Bells.xcodeproj/project.pbxproj"), /app-extension/);
  assert.doesNotMatch(await read(root, "ios/Bells/Bells.entitlements"), /keychain-access-groups/);
  const manifest = await read(root, "android/app/src/main/AndroidManifest.xml");
  assert.doesNotMatch(manifest, /FastbellMessagingService/);
  assert.match(manifest, /default_notification_channel_id" android:value="reminders"/);
});

test("the channel that an app names to expo-notifications stays", async () => {
  const root = await app(["expo-notifications", { defaultChannel: "mine" }], ["@fastbell/expo", { sealed: false }]);

  const manifest = await read(root, "android/app/src/main/AndroidManifest.xml");

  assert.match(manifest, /default_notification_channel_id" android:value="mine"/);
  assert.doesNotMatch(manifest, /"reminders"/);
});

test("the app's choice for expo-notifications holds in either order, and without a choice it is development", async () => {
  const choice = ["expo-notifications", { mode: "production" }];
  const unsealed = ["@fastbell/expo", { sealed: false }];
  const environment = /<key>aps-environment<\/key>\s*<string>(.*?)<\/string>/;
  for (const [plugins, expected] of [
    [[choice, "@fastbell/expo"], "production"],
    [["@fastbell/expo", choice], "production"],
    [[unsealed], "development"], // expo-notifications' plugin runs though nobody lists it
  ] as const) {
    const root = await app(...plugins);
    assert.equal(environment.exec(await read(root, "ios/Bells/Bells.entitlements"))?.[1], expected, JSON.stringify(plugins));
  }
});

test("an app for Android alone needs no name for iOS, and has its service", async () => {
  const root = await appOf({ platforms: ["android"], ios: undefined, plugins: ["expo-notifications", "@fastbell/expo"] });

  assert.match(await read(root, "android/app/src/main/AndroidManifest.xml"), /FastbellMessagingService/);
});

test("the extension cannot have the name of the app's target", async () => {
  for (const serviceName of ["Bells", "bells"]) {
    await assert.rejects(app(["@fastbell/expo", { serviceName }]), new RegExp(`serviceName cannot be "${serviceName}"`));
  }
});

test("an option that is not there, or is not what it should be, is refused with a sentence", async () => {
  await assert.rejects(app(["@fastbell/expo", { seald: true }]), /no such option: seald/);
  for (const [options, sentence] of [
    [{ sealed: "false" }, /sealed is true or false/],
    [{ sealed: null }, /sealed is true or false/],
    [{ sealed: 0 }, /sealed is true or false/],
    [{ serviceName: ["Abc"] }, /serviceName is letters and digits/],
    [{ serviceName: 5 }, /serviceName is letters and digits/],
    [{ serviceName: "1st" }, /serviceName is letters and digits/],
    ["x", /options are an object/],
    [["sealed"], /options are an object/],
  ] as const) {
    assert.throws(() => chosen(options as never), sentence, JSON.stringify(options));
  }
  for (const options of [undefined, null, {}]) {
    assert.deepEqual(chosen(options), { sealed: true, serviceName: "FastbellService" });
  }
});

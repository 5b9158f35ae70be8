/** The notification service extension: its files, its target, and what EAS has to know to sign it. */

import { createHash } from "node:crypto";
import { copyFileSync, existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import configPlugins, { type ConfigPlugin, type XcodeProject } from "expo/config-plugins.js";

import { GROUP_NAME, keychainGroup } from "./options.ts";
import { propertyList } from "./propertyList.ts";

const { withDangerousMod, withXcodeProject } = configPlugins;
const SOURCES = [
  ["service", "NotificationService.swift"],
  ["service", "Sealed.swift"],
  [".", "Keys.swift"],
] as const;
const PACKAGE_IOS = fileURLToPath(new URL("../../ios", import.meta.url));
const HPKE_SINCE = "17.0"; // older systems do not load the extension and show the generic text

interface Extension {
  readonly bundleIdentifier: string;
  readonly serviceName: string;
}

export const withServiceExtension: ConfigPlugin<Extension> = (config, extension) => {
  const entitlements = entitlementsOf(extension);
  const written = withDangerousMod(config, [
    "ios",
    (mod) => {
      const { serviceName } = extension;
      const folder = join(mod.modRequest.platformProjectRoot, serviceName);
      mkdirSync(folder, { recursive: true });
      for (const [from, name] of SOURCES) {
        copyFileSync(join(PACKAGE_IOS, from, name), join(folder, name));
      }
      writeFileSync(join(folder, `${serviceName}-Info.plist`), propertyList(infoOf(extension)));
      writeFileSync(join(folder, `${serviceName}.entitlements`), propertyList(entitlements));
      return mod;
    },
  ]);
  const built = withXcodeProject(written, (mod) => {
    targeted(mod.modResults, extension, { version: mod.version ?? "1.0", build: mod.ios?.buildNumber ?? "1" });
    return mod;
  });
  return signedByEas(built, extension, entitlements);
};

/**
 * Say which extension of ours an earlier prebuild has left that is not to be there any more; null where there is none. Of two
 * iOS runs one, and EAS signs one.
 */
export function leftBehind(root: string, serviceName: string | null): string | null {
  const isOurs = (name: string) => {
    const path = join(root, name, `${name}-Info.plist`);
    return existsSync(path) && readFileSync(path, "utf8").includes(GROUP_NAME);
  };
  const other = (existsSync(root) ? readdirSync(root) : []).find((name) => name !== serviceName && isOurs(name));
  return other === undefined ? null : `ios/${other} is the extension of an earlier prebuild: run "npx expo prebuild --clean"`;
}

interface Target {
  readonly name: string;
  readonly buildConfigurationList: string;
}

/** The extension's target, made where an earlier prebuild has not, and in line with the app as it is now. */
function targeted(project: XcodeProject, extension: Extension, app: { version: string; build: string }): void {
  configure(project, targetNamed(project, extension.serviceName) ?? addTarget(project, extension), extension, app);
}

/** The library's own look-up goes by comments, which have quotes for targets that it has made, and none for Xcode's. */
function targetNamed(project: XcodeProject, name: string): Target | undefined {
  const targets = Object.values<Target | string>(project.pbxNativeTargetSection());
  return targets.find((each): each is Target => typeof each === "object" && unquoted(each.name) === name);
}

function unquoted(text: unknown): string {
  return String(text).replaceAll('"', "");
}

function addTarget(project: XcodeProject, { bundleIdentifier, serviceName }: Extension): Target {
  // Ids are random by default, and each prebuild would change every line of ours.
  const random = project.generateUuid;
  let count = 0;
  project.generateUuid = () => {
    for (;;) {
      count += 1;
      const id = createHash("sha256").update(`fastbell/${serviceName}/${count}`).digest("hex").slice(0, 24).toUpperCase();
      if (!project.allUuids().includes(id)) {
        return id;
      }
    }
  };
  try {
    const names = SOURCES.map(([, name]) => name);
    const files = [...names, `${serviceName}-Info.plist`, `${serviceName}.entitlements`];
    const group = project.addPbxGroup(files, serviceName, serviceName);
    const main = project.getFirstProject().firstProject.mainGroup;
    project.addToPbxGroup(group.uuid, main);
    // The library assumes these two where an app has a single target, and fails without them.
    const objects = project.hash.project.objects;
    objects["PBXTargetDependency"] ??= {};
    objects["PBXContainerItemProxy"] ??= {};
    const target = project.addTarget(serviceName, "app_extension", serviceName, `${bundleIdentifier}.${serviceName}`);
    project.addBuildPhase(names, "PBXSourcesBuildPhase", "Sources", target.uuid);
    project.addBuildPhase([], "PBXFrameworksBuildPhase", "Frameworks", target.uuid);
    project.addBuildPhase([], "PBXResourcesBuildPhase", "Resources", target.uuid);
    tidy(project, [...files, `${serviceName}.appex`], files.slice(names.length));
    return target.pbxNativeTarget as Target;
  } finally {
    project.generateUuid = random;
  }
}

/** The library writes the word "undefined", and would have Info.plist and entitlements built. */
function tidy(project: XcodeProject, files: readonly string[], notBuilt: readonly string[]): void {
  for (const reference of Object.values<Record<string, unknown>>(project.pbxFileReferenceSection())) {
    if (files.includes(unquoted(reference?.["name"]))) {
      for (const [key, value] of Object.entries(reference)) {
        if (value === undefined || value === "unknown") {
          delete reference[key];
        }
      }
    }
  }
  const built = project.pbxBuildFileSection();
  for (const [id, file] of Object.entries<{ fileRef_comment?: string }>(built)) {
    const name = file?.fileRef_comment;
    if (name !== undefined && notBuilt.includes(name)) {
      delete built[id];
      delete built[`${id}_comment`];
    }
  }
}

interface Lists {
  readonly [id: string]: { readonly buildConfigurations: readonly { readonly value: string }[] };
}

function configure(
  project: XcodeProject,
  { buildConfigurationList }: Target,
  { bundleIdentifier, serviceName }: Extension,
  app: { version: string; build: string },
): void {
  const lists = project.pbxXCConfigurationList() as Lists;
  for (const { value } of lists[buildConfigurationList]?.buildConfigurations ?? []) {
    Object.assign(project.pbxXCBuildConfigurationSection()[value].buildSettings, {
      CLANG_ENABLE_MODULES: "YES",
      CODE_SIGN_ENTITLEMENTS: `"${serviceName}/${serviceName}.entitlements"`,
      CODE_SIGN_STYLE: "Automatic",
      CURRENT_PROJECT_VERSION: `"${app.build}"`,
      GENERATE_INFOPLIST_FILE: "NO",
      IPHONEOS_DEPLOYMENT_TARGET: HPKE_SINCE,
      MARKETING_VERSION: `"${app.version}"`,
      PRODUCT_BUNDLE_IDENTIFIER: `"${bundleIdentifier}.${serviceName}"`,
      SWIFT_VERSION: "5.0",
      TARGETED_DEVICE_FAMILY: '"1,2"',
    });
  }
}

function infoOf({ bundleIdentifier, serviceName }: Extension) {
  return {
    CFBundleDevelopmentRegion: "$(DEVELOPMENT_LANGUAGE)",
    CFBundleDisplayName: serviceName,
    CFBundleExecutable: "$(EXECUTABLE_NAME)",
    CFBundleIdentifier: "$(PRODUCT_BUNDLE_IDENTIFIER)",
    CFBundleInfoDictionaryVersion: "6.0",
    CFBundleName: "$(PRODUCT_NAME)",
    CFBundlePackageType: "$(PRODUCT_BUNDLE_PACKAGE_TYPE)",
    CFBundleShortVersionString: "$(MARKETING_VERSION)",
    CFBundleVersion: "$(CURRENT_PROJECT_VERSION)",
    [GROUP_NAME]: keychainGroup(bundleIdentifier),
    NSExtension: {
      NSExtensionPointIdentifier: "com.apple.usernotifications.service",
      NSExtensionPrincipalClass: "$(PRODUCT_MODULE_NAME).NotificationService",
    },
  };
}

function entitlementsOf({ bundleIdentifier }: Extension) {
  return { "keychain-access-groups": [keychainGroup(bundleIdentifier)] };
}

/** EAS makes a profile for each target that it is told of before the project exists. */
const signedByEas = (config: Parameters<ConfigPlugin>[0], extension: Extension, entitlements: object): Parameters<ConfigPlugin>[0] => {
  const { serviceName, bundleIdentifier } = extension;
  const extra = (config.extra ?? {}) as { eas?: { build?: { experimental?: { ios?: { appExtensions?: { targetName: string }[] } } } } };
  const { eas } = extra;
  const others = eas?.build?.experimental?.ios?.appExtensions?.filter(({ targetName }) => targetName !== serviceName) ?? [];
  const ours = { targetName: serviceName, bundleIdentifier: `${bundleIdentifier}.${serviceName}`, entitlements };
  const ios = { ...eas?.build?.experimental?.ios, appExtensions: [...others, ours] };
  const build = { ...eas?.build, experimental: { ...eas?.build?.experimental, ios } };
  return { ...config, extra: { ...extra, eas: { ...eas, build } } };
};

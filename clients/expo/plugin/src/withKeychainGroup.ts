/** The keychain group that app and extension share, and where native code reads its name. */

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

import configPlugins, { type ConfigPlugin } from "expo/config-plugins.js";

import { GROUP_NAME, OUR_GROUP, keychainGroup } from "./options.ts";

const { withDangerousMod, withEntitlementsPlist, withInfoPlist } = configPlugins;
const GROUPS = "keychain-access-groups";
const WRITTEN = new RegExp(`<key>${GROUP_NAME}</key>\\s*<string>(.*?)</string>`);

export const withKeychainGroup: ConfigPlugin<{ bundleIdentifier: string }> = (config, { bundleIdentifier }) => {
  const group = keychainGroup(bundleIdentifier);
  const own = `$(AppIdentifierPrefix)${bundleIdentifier}`;
  const stays = [own, group, ...((config.ios?.entitlements?.[GROUPS] as string[] | undefined) ?? [])]; // as app.json says
  let earlier: string | undefined;
  const known = withDangerousMod(config, [
    "ios", // runs before anything is written
    (mod) => {
      const path = join(mod.modRequest.platformProjectRoot, mod.modRequest.projectName ?? "", "Info.plist");
      earlier = existsSync(path) ? WRITTEN.exec(readFileSync(path, "utf8"))?.[1] : undefined;
      return mod;
    },
  ]);
  const entitled = withEntitlementsPlist(known, (mod) => {
    // A prebuild over one of another bundle identifier finds that one's pair of groups. No other is taken for such a pair:
    // an app's own group may end as ours do (`com.example.fastbell`).
    const now = new Map(earlier === undefined ? [] : [[earlier, group], [earlier.slice(0, -OUR_GROUP.length), own]]);
    const found = (mod.modResults[GROUPS] as string[] | undefined) ?? [];
    const groups = [...new Set(found.map((each) => (stays.includes(each) ? each : (now.get(each) ?? each))))];
    // The first group is where items go that name none. Without the app's own in front, the app's other secrets would
    // from now on be written into ours.
    const named = groups.length === 0 || groups[0] === group ? [own, ...groups] : groups;
    mod.modResults[GROUPS] = named.includes(group) ? named : [...named, group];
    return mod;
  });
  return withInfoPlist(entitled, (mod) => {
    mod.modResults[GROUP_NAME] = group;
    return mod;
  });
};

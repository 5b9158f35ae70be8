/** The keychain group that app and extension share, and where native code reads its name. */

import configPlugins, { type ConfigPlugin } from "expo/config-plugins.js";

import { OUR_GROUP, keychainGroup } from "./options.ts";

const { withEntitlementsPlist, withInfoPlist } = configPlugins;
const GROUPS = "keychain-access-groups";

export const withKeychainGroup: ConfigPlugin<{ bundleIdentifier: string }> = (config, { bundleIdentifier }) => {
  const group = keychainGroup(bundleIdentifier);
  const entitled = withEntitlementsPlist(config, (mod) => {
    // The first group is where items go that name none. Without the app's own in front, the app's other secrets would
    // from now on be written into ours.
    const own = `$(AppIdentifierPrefix)${bundleIdentifier}`;
    const groups = withoutEarlier((mod.modResults[GROUPS] as string[] | undefined) ?? [], group);
    const named = groups.length === 0 || groups[0] === group ? [own, ...groups] : groups;
    mod.modResults[GROUPS] = named.includes(group) ? named : [...named, group];
    return mod;
  });
  return withInfoPlist(entitled, (mod) => {
    mod.modResults["FastbellKeychainGroup"] = group;
    return mod;
  });
};

/** A prebuild over one of another bundle identifier finds that one's pair of groups, which would go on to be the first. */
function withoutEarlier(groups: readonly string[], group: string): string[] {
  const others = groups.filter((each) => each.endsWith(OUR_GROUP) && each !== group);
  const earlier = others.flatMap((each) => [each, each.slice(0, -OUR_GROUP.length)]);
  return groups.filter((each) => !earlier.includes(each));
}

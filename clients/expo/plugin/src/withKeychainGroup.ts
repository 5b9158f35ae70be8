/** The keychain group that app and extension share, and where native code reads its name. */

import configPlugins, { type ConfigPlugin } from "expo/config-plugins.js";

import { keychainGroup } from "./options.ts";

const { withEntitlementsPlist, withInfoPlist } = configPlugins;
const GROUPS = "keychain-access-groups";

export const withKeychainGroup: ConfigPlugin<{ bundleIdentifier: string }> = (config, { bundleIdentifier }) => {
  const group = keychainGroup(bundleIdentifier);
  const entitled = withEntitlementsPlist(config, (mod) => {
    // The first group is where items go that name none. Without the app's own in front, the app's other secrets would
    // from now on be written into ours.
    const groups = (mod.modResults[GROUPS] as string[] | undefined) ?? [`$(AppIdentifierPrefix)${bundleIdentifier}`];
    mod.modResults[GROUPS] = groups.includes(group) ? groups : [...groups, group];
    return mod;
  });
  return withInfoPlist(entitled, (mod) => {
    mod.modResults["FastbellKeychainGroup"] = group;
    return mod;
  });
};

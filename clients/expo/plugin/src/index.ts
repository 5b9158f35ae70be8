/** The config plugin: `"plugins": ["@fastbell/expo"]`. */

import configPlugins, { type ConfigPlugin } from "expo/config-plugins.js";

import { type PluginOptions, chosen } from "./options.ts";
import { withAndroid } from "./withAndroid.ts";
import { withKeychainGroup } from "./withKeychainGroup.ts";
import { withServiceExtension } from "./withServiceExtension.ts";

const { createRunOncePlugin, withEntitlementsPlist } = configPlugins;

const withFastbell: ConfigPlugin<PluginOptions | undefined> = (config, options) => {
  const { sealed, serviceName } = chosen(options);
  const onAndroid = withAndroid(config, { sealed });
  const entitled = withEntitlementsPlist(onAndroid, (mod) => {
    mod.modResults["aps-environment"] ??= "development"; // the profile of a release makes it "production"
    return mod;
  });
  if (!sealed) {
    return entitled;
  }
  const bundleIdentifier = config.ios?.bundleIdentifier;
  if (bundleIdentifier === undefined) {
    throw new Error("@fastbell/expo: sealed texts need ios.bundleIdentifier, for the extension's name is made of it");
  }
  const grouped = withKeychainGroup(entitled, { bundleIdentifier });
  return withServiceExtension(grouped, { bundleIdentifier, serviceName });
};

export default createRunOncePlugin(withFastbell, "@fastbell/expo");

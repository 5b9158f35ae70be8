/** What an app says of itself in its `plugins`. */

export interface PluginOptions {
  /** Whether texts are sealed: adds the extension, its keychain group and the Android service. True by default. */
  readonly sealed?: boolean;
  /** Name of the extension's target, and the last part of its bundle identifier. */
  readonly serviceName?: string;
}

export interface Chosen {
  readonly sealed: boolean;
  readonly serviceName: string;
}

const KNOWN = ["sealed", "serviceName"];

/** Read the options, which come from an app.json without any types; throws where one is not what it should be. */
export function chosen(options: PluginOptions | null | undefined): Chosen {
  const told: unknown = options ?? {};
  if (typeof told !== "object" || Array.isArray(told)) {
    throw new Error('@fastbell/expo: options are an object: ["@fastbell/expo", { "sealed": true }]');
  }
  const unknown = Object.keys(told as object).filter((name) => !KNOWN.includes(name));
  if (unknown.length > 0) {
    throw new Error(`@fastbell/expo: no such option: ${unknown.join(", ")}. There are ${KNOWN.join(" and ")}.`);
  }
  const { sealed = true, serviceName = "FastbellService" } = told as { readonly [name: string]: unknown };
  if (typeof sealed !== "boolean") {
    throw new Error("@fastbell/expo: sealed is true or false, without quotation marks");
  }
  if (typeof serviceName !== "string" || !/^[A-Za-z][A-Za-z0-9]*$/.test(serviceName)) {
    throw new Error("@fastbell/expo: serviceName is letters and digits, beginning with a letter");
  }
  return { sealed, serviceName };
}

/** Say why the extension cannot have a name; null where it can. Upper and lower case are one file to most Macs. */
export function taken(serviceName: string, target: string): string | null {
  const isTheApps = serviceName.toLowerCase() === target.toLowerCase();
  return isTheApps ? `serviceName cannot be "${serviceName}": that is the app's own target` : null;
}

/** The key in Info.plist, of the app and of the extension, under which native code finds the group. */
export const GROUP_NAME = "FastbellKeychainGroup";

export const OUR_GROUP = ".fastbell";

/** The keychain group of app and extension, with the team's prefix as the build fills it in. */
export function keychainGroup(bundleIdentifier: string): string {
  return `$(AppIdentifierPrefix)${bundleIdentifier}${OUR_GROUP}`;
}

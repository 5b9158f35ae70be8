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

export function chosen(options: PluginOptions | undefined): Chosen {
  const unknown = Object.keys(options ?? {}).filter((name) => !KNOWN.includes(name));
  if (unknown.length > 0) {
    throw new Error(`@fastbell/expo: no such option: ${unknown.join(", ")}. There are ${KNOWN.join(" and ")}.`);
  }
  const serviceName = options?.serviceName ?? "FastbellService";
  if (!/^[A-Za-z][A-Za-z0-9]*$/.test(serviceName)) {
    throw new Error("@fastbell/expo: serviceName is letters and digits, beginning with a letter");
  }
  return { sealed: options?.sealed ?? true, serviceName };
}

export const OUR_GROUP = ".fastbell";

/** The keychain group of app and extension, with the team's prefix as the build fills it in. */
export function keychainGroup(bundleIdentifier: string): string {
  return `$(AppIdentifierPrefix)${bundleIdentifier}${OUR_GROUP}`;
}

/** Tells a reinstalled app: the iOS keychain outlives the app, ordinary settings do not. */

/** iOS' user defaults. */
export interface UserDefaults {
  get(key: string): unknown;
  set(settings: object): void;
}

const MARK = "fastbell.installed";

/** True once after a reinstall, and after the first install: whoever the keychain speaks of has left. */
export function wasReinstalled(os: "ios" | "android", defaults: UserDefaults): boolean {
  return os === "ios" && defaults.get(MARK) !== 1;
}

export function markInstalled(os: "ios" | "android", defaults: UserDefaults): void {
  if (os === "ios") {
    defaults.set({ [MARK]: 1 });
  }
}

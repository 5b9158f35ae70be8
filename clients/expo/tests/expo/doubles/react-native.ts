import { listened, phone } from "./phone.ts";

export const Platform = { OS: "ios", Version: "26.1" };
export const AppState = {
  currentState: "active",
  addEventListener: (_: string, listener: (status: never) => void) => listened("app")(listener),
};
export const Settings = {
  get: (key: string) => phone.settings.get(key),
  set: (more: object) => Object.entries(more).forEach(([key, value]) => phone.settings.set(key, value)),
};

import { nativeIntent } from "@fastbell/expo/router";

export function redirectSystemPath(link: { path: string; initial: boolean }): string {
  return nativeIntent(link);
}

/** What the system says of itself. */

import type { System } from "../core/ports.ts";

export interface SystemEnds {
  locales(): readonly { readonly languageTag: string }[];
  calendars(): readonly { readonly timeZone: string | null }[];
  readonly appVersion: string | null;
  readonly osVersion: string | null;
}

export function systemOf({ locales, calendars, appVersion, osVersion }: SystemEnds): System {
  return {
    locale: () => locales()[0]?.languageTag ?? null,
    timeZone: () => calendars()[0]?.timeZone ?? null,
    appVersion: () => appVersion,
    osVersion: () => osVersion,
    observe: () => () => undefined, // language and zone change in the settings; the next open reads them
  };
}

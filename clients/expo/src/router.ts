/** Fastbell and Expo Router: taps lead to their screen, and links from elsewhere no further than they may. */

import { usePathname, useRootNavigationState, useRouter } from "expo-router";
import { useEffect } from "react";

import { LINKS } from "./core/fastbell.ts";
import { pathOf } from "./core/links.ts";
import type { PhoneFastbell } from "./index.ts";

/**
 * Follow openings, in the root layout, while somebody is signed in. They wait until there is a navigator: Expo Router
 * fails on a navigation before the root layout is mounted.
 */
export function useOpenings(fastbell: PhoneFastbell, isSignedIn: boolean): void {
  const router = useRouter();
  const path = usePathname();
  const isMounted = useRootNavigationState()?.key !== undefined;
  useEffect(() => {
    fastbell.looksAt(path);
    return () => fastbell.looksAt(null);
  }, [fastbell, path]);
  useEffect(() => {
    if (!isMounted || !isSignedIn) {
      return undefined;
    }
    const follow = () => {
      for (let opening = fastbell.openings.take(); opening !== null; opening = fastbell.openings.take()) {
        router.navigate(opening.path);
      }
    };
    follow();
    return fastbell.openings.subscribe(follow);
  }, [fastbell, router, isMounted, isSignedIn]);
}

/** For `app/+native-intent.ts`, as `redirectSystemPath`: links to this app lead to what a push can be about, or to "/". */
export function nativeIntent({ path }: { readonly path: string }, links: readonly string[] = LINKS): string {
  return pathOf(path, links);
}

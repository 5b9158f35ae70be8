/** Says when the network comes back. */

import type { Network } from "../core/ports.ts";

interface NetworkState {
  readonly isConnected?: boolean | undefined;
  readonly isInternetReachable?: boolean | undefined;
}

export interface NetworkModule {
  addNetworkStateListener(listener: (state: NetworkState) => void): { remove(): void };
}

/**
 * One listener for the app's life: on iOS removing the last one ends the monitor for good, and a later listener hears
 * nothing.
 */
export function networkOf(module: NetworkModule): Network {
  const observers = new Set<() => void>();
  let isThere = false; // for all we know: an app may start without one, and one look too many does no harm
  module.addNetworkStateListener(({ isConnected, isInternetReachable }) => {
    const was = isThere;
    isThere = isConnected === true && isInternetReachable !== false;
    if (isThere && !was) {
      observers.forEach((observer) => observer());
    }
  });
  return {
    observe(onBack) {
      observers.add(onBack);
      return () => observers.delete(onBack);
    },
  };
}

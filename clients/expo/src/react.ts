/** Fastbell in React: a provider, and hooks that follow it. */

import { createContext, createElement, type ReactNode, useCallback, useContext, useEffect, useState, useSyncExternalStore } from "react";

import type { Fast, Fastbell, Preferences, PreferencesChange, PushState } from "./core/fastbell.ts";
import type { Outcome, Problem } from "./core/problems.ts";
import type { LogItem } from "./core/sync.ts";

const Context = createContext<Fastbell | null>(null);

export function FastbellProvider({ fastbell, children }: { readonly fastbell: Fastbell; readonly children?: ReactNode }) {
  return createElement(Context.Provider, { value: fastbell }, children);
}

export function useFastbell(): Fastbell {
  const fastbell = useContext(Context);
  if (fastbell === null) {
    throw new Error("no FastbellProvider around this component");
  }
  return fastbell;
}

/** What stands between the person and their reminders. */
export function usePushState(): PushState {
  const { push } = useFastbell();
  const kept = useState<{ text: string; state: PushState }>(() => keep(push.current))[0];
  return useSyncExternalStore(push.subscribe, () => {
    const now = keep(push.current); // a new object each time, which React would take for a change
    if (now.text !== kept.text) {
      Object.assign(kept, now);
    }
    return kept.state;
  });
}

/** Call for items of the log, once they are stored. */
export function useItems(onItems: (items: readonly LogItem[]) => void): void {
  const fastbell = useFastbell();
  useEffect(() => fastbell.onItems(onItems), [fastbell, onItems]);
}

/** What a call gave, and how to make it again. */
export interface Read<T> {
  readonly value: T | null; // null until it is read, and where there is none
  readonly problem: Problem | null;
  refresh(): Promise<void>;
}

/** The fast that is going on; read again whenever the log says something. */
export function useCurrentFast(): Read<Fast> {
  const fastbell = useFastbell();
  const { took: _, ...fast } = useRead<Fast | null>(useCallback(() => fastbell.fasts.current(), [fastbell]));
  useItems(fast.refresh);
  return fast;
}

/** Preferences, and how to change them. */
export interface Changeable extends Read<Preferences> {
  /** True once they are changed; what another phone changed meanwhile is read first, so that nothing is overwritten unseen. */
  change(to: PreferencesChange): Promise<boolean>;
}

const CHANGED_ELSEWHERE = 412;

/** The person's notification preferences. */
export function usePreferences(): Changeable {
  const fastbell = useFastbell();
  const { took, ...read } = useRead<Preferences>(useCallback(() => fastbell.preferences.read(), [fastbell]));
  const { value, refresh } = read;
  const change = useCallback(
    async (to: PreferencesChange) => {
      const changed = await fastbell.preferences.change(to, value?.rev);
      if (!changed.ok && changed.problem.is === "refused" && changed.problem.status === CHANGED_ELSEWHERE) {
        await refresh();
      }
      took(changed);
      return changed.ok;
    },
    [fastbell, value, refresh, took],
  );
  return { ...read, change };
}

function useRead<T>(read: () => Promise<Outcome<T>>): Read<NonNullable<T>> & { took(outcome: Outcome<T>): void } {
  const [{ value, problem }, set] = useState<{ value: T | null; problem: Problem | null }>({ value: null, problem: null });
  const took = useCallback((outcome: Outcome<T>) => {
    set((before) => (outcome.ok ? { value: outcome.value, problem: null } : { ...before, problem: outcome.problem }));
  }, []);
  const refresh = useCallback(async () => took(await read()), [read, took]);
  useEffect(() => void read().then(took), [read, took]);
  return { value: value as NonNullable<T> | null, problem, refresh, took };
}

function keep(state: PushState): { text: string; state: PushState } {
  return { text: JSON.stringify(state), state };
}

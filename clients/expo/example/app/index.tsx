import type { LogItem } from "@fastbell/expo";
import { useCurrentFast, useItems, usePushState } from "@fastbell/expo/react";
import { randomUUID } from "expo-crypto";
import { Link } from "expo-router";
import { useCallback, useEffect, useState } from "react";

import { fastbell, log } from "../src/fastbell";
import { Button, Line, Screen, Trouble } from "../src/parts";
import { leave } from "../src/session";

const HOUR = 3_600_000;

export default function Home() {
  const fast = useCurrentFast();
  const chats = useChats();
  const push = usePushState();
  const start = async () => {
    await fastbell.askPermission(); // now the person knows what for
    await fastbell.fasts.start({ id: randomUUID(), ends_at: new Date(Date.now() + 16 * HOUR).toISOString() });
    await fast.refresh();
  };
  const end = async (id: string) => {
    await fastbell.fasts.end(id);
    await fast.refresh();
  };
  const signOut = async () => {
    await fastbell.signOut(); // first, while the bearer token still counts; without a network it is as good
    await leave();
  };
  const { value } = fast;
  return (
    <Screen>
      <Trouble problem={fast.problem} />
      {push.is === "registered" && push.permission === "denied" ? <Line>Notifications are switched off on this phone.</Line> : null}
      {value === null ? (
        <Button title="Start a fast of 16 hours" onPress={start} />
      ) : (
        <>
          <Line>Ends {new Date(value.ends_at).toLocaleString()}</Line>
          <Button title="End the fast" onPress={() => end(value.id)} />
        </>
      )}
      {chats.map((id) => (
        <Link key={id} href={{ pathname: "/conversations/[id]", params: { id } }}>
          Chat {id.slice(0, 8)}
        </Link>
      ))}
      <Link href="/preferences">Preferences</Link>
      <Link href="/phone">What this phone knows</Link>
      <Button title="Sign out" onPress={signOut} />
    </Screen>
  );
}

/** Conversations that the log speaks of, the latest first. */
function useChats(): string[] {
  const [items, setItems] = useState<readonly LogItem[]>([]);
  const read = useCallback(() => void log.read(200).then(setItems), []);
  useEffect(read, [read]);
  useItems(read);
  return [...new Set(items.filter(({ kind }) => kind === "message").map((item) => item.conversation_id))];
}

import { usePushState } from "@fastbell/expo/react";
import { useEffect, useState } from "react";

import { fastbell, log } from "../src/fastbell";
import { Button, Line, Screen, Trouble } from "../src/parts";

interface Known {
  readonly cursor: number;
  readonly newest: string | null;
}

export default function Phone() {
  const push = usePushState();
  const [known, setKnown] = useState<Known | null>(null);
  const [problem, setProblem] = useState<Awaited<ReturnType<typeof fastbell.sync>>>(null);
  useEffect(() => void read().then(setKnown), []);
  const sync = async () => {
    setProblem(await fastbell.sync());
    setKnown(await read());
  };
  return (
    <Screen>
      <Line>Registration: {JSON.stringify(push, null, 2)}</Line>
      <Line>Read up to item {known?.cursor ?? "…"} of the log</Line>
      <Line>Newest item: {known?.newest ?? "none"}</Line>
      <Trouble problem={problem} />
      <Button title="Sync now" onPress={sync} />
      <Button title="Allow notifications" onPress={() => fastbell.askPermission()} />
    </Screen>
  );
}

async function read(): Promise<Known> {
  const [cursor, [newest]] = await Promise.all([log.cursor(), log.read(1)]);
  return { cursor, newest: newest?.created_at ?? null };
}

import { type LogItem, outcome, type Problem } from "@fastbell/expo";
import { useItems } from "@fastbell/expo/react";
import { randomUUID } from "expo-crypto";
import { useLocalSearchParams } from "expo-router";
import { useCallback, useEffect, useState } from "react";
import { FlatList, TextInput } from "react-native";

import { client, log } from "../../src/fastbell";
import { Button, Line, Screen, styles, Trouble } from "../../src/parts";
import { useSession } from "../../src/session";

const SHOWN = 200;

export default function Chat() {
  const { id } = useLocalSearchParams<{ id: string }>();
  const me = useSession()?.userId;
  const [items, setItems] = useState<readonly LogItem[]>([]);
  const [body, setBody] = useState("");
  const [problem, setProblem] = useState<Problem | null>(null);
  const read = useCallback(() => void log.read(SHOWN).then((all) => setItems(all.filter((item) => item.conversation_id === id))), [id]);
  useEffect(read, [read]);
  useItems(read);
  const send = async () => {
    const path = { conversation_id: id, message_id: randomUUID() }; // made here, so that a second try is the same message
    const sent = await outcome(
      client.PUT("/v1/conversations/{conversation_id}/messages/{message_id}", { params: { path }, body: { body } }),
    );
    setProblem(sent.ok ? null : sent.problem);
    if (sent.ok) {
      setBody("");
    }
  };
  return (
    <Screen>
      <FlatList
        inverted
        data={items}
        keyExtractor={({ seq }) => String(seq)}
        renderItem={({ item }) => (
          <Line>
            {item.sender_id === me ? "You" : (item.sender_id ?? "Somebody who left")}: {item.body ?? "(deleted)"}
          </Line>
        )}
      />
      <Trouble problem={problem} />
      <TextInput accessibilityLabel="Message" style={styles.input} value={body} onChangeText={setBody} />
      <Button title="Send" onPress={send} />
    </Screen>
  );
}

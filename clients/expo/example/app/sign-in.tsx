import { useState } from "react";
import { TextInput } from "react-native";

import { fastbell } from "../src/fastbell";
import { Button, Line, Screen, styles } from "../src/parts";
import { enter } from "../src/session";

export default function SignIn() {
  const [bearer, setBearer] = useState("");
  const [isWrong, setWrong] = useState(false);
  const signIn = async () => {
    const session = await enter(bearer);
    setWrong(session === null);
    if (session !== null) {
      await fastbell.signedIn(session.userId);
    }
  };
  return (
    <Screen>
      <Line>Paste what `cli.py token --user alice` prints.</Line>
      <TextInput accessibilityLabel="Token" autoCapitalize="none" multiline style={styles.input} value={bearer} onChangeText={setBearer} />
      {isWrong ? <Line>That is no token.</Line> : null}
      <Button title="Sign in" onPress={signIn} />
    </Screen>
  );
}

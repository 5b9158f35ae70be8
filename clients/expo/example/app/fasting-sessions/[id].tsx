import { useCurrentFast } from "@fastbell/expo/react";
import { useLocalSearchParams } from "expo-router";

import { Line, Screen, Trouble } from "../../src/parts";

export default function Fast() {
  const { id } = useLocalSearchParams<{ id: string }>();
  const { value, problem } = useCurrentFast();
  return (
    <Screen>
      <Trouble problem={problem} />
      <Line>{value?.id === id ? `Ends ${new Date(value.ends_at).toLocaleString()}` : "This fast is over."}</Line>
    </Screen>
  );
}

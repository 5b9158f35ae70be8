import { usePreferences } from "@fastbell/expo/react";
import { Linking } from "react-native";

import { Button, Line, Screen, Trouble } from "../src/parts";

export default function Preferences() {
  const { value, problem } = usePreferences();
  return (
    <Screen>
      <Trouble problem={problem} />
      {value === null ? null : (
        <>
          <Line>Reminders: {value.reminders ? `${value.reminder_minutes.join(", ")} minutes before` : "off"}</Line>
          <Line>Messages: {value.messages ? "on" : "off"}</Line>
          <Line>Quiet hours: {value.quiet_hours ? `${value.quiet_hours.starts} to ${value.quiet_hours.ends}` : "none"}</Line>
        </>
      )}
      <Button title="The phone's own settings" onPress={() => Linking.openSettings()} />
    </Screen>
  );
}

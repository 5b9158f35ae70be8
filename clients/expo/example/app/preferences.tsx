import { usePreferences } from "@fastbell/expo/react";
import { openBrowserAsync } from "expo-web-browser";
import { useEffect } from "react";
import { AppState, Linking, Switch, View } from "react-native";

import { Button, Line, Screen, styles, Trouble } from "../src/parts";

const NIGHT = { starts: "22:00", ends: "07:00", time_zone: null };

export default function Preferences() {
  const { value, problem, change, refresh, pageUrl } = usePreferences();
  useEffect(() => {
    const listening = AppState.addEventListener("change", (state) => state === "active" && void refresh()); // back from elsewhere
    return () => listening.remove();
  }, [refresh]);
  const openPage = async () => {
    const url = await pageUrl(); // good once, so one for each tap
    if (url !== null) {
      await openBrowserAsync(url); // on Android at once, on iOS when it is closed
      await refresh();
    }
  };
  return (
    <Screen>
      <Trouble problem={problem} />
      {value === null ? null : (
        <>
          <Choice label="Reminders" isOn={value.reminders} onChange={(reminders) => change({ reminders })} />
          <Line>{value.reminder_minutes.join(", ")} minutes before the end</Line>
          <Choice label="Messages" isOn={value.messages} onChange={(messages) => change({ messages })} />
          <Choice
            label="Quiet from 22:00 to 07:00, wherever I am"
            isOn={value.quiet_hours !== null}
            onChange={(isOn) => change({ quiet_hours: isOn ? NIGHT : null })}
          />
        </>
      )}
      <Button title="All preferences" onPress={openPage} />
      <Button title="The phone's own settings" onPress={() => Linking.openSettings()} />
    </Screen>
  );
}

function Choice({ label, isOn, onChange }: { readonly label: string; readonly isOn: boolean; onChange(isOn: boolean): unknown }) {
  return (
    <View style={styles.choice}>
      <Line>{label}</Line>
      <Switch accessibilityLabel={label} value={isOn} onValueChange={(next) => void onChange(next)} />
    </View>
  );
}

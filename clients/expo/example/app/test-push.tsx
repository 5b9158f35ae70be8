import { Line, Screen } from "../src/parts";

export default function TestPush() {
  return (
    <Screen>
      <Line>The test push arrived, and its tap led here.</Line>
    </Screen>
  );
}

/** The few shapes that the screens are made of. */

import type { Problem } from "@fastbell/expo";
import type { ReactNode } from "react";
import { Pressable, StyleSheet, Text, View } from "react-native";

export function Screen({ children }: { readonly children: ReactNode }) {
  return <View style={styles.screen}>{children}</View>;
}

export function Line({ children }: { readonly children: ReactNode }) {
  return <Text style={styles.line}>{children}</Text>;
}

export function Button({ title, onPress }: { readonly title: string; onPress(): unknown }) {
  return (
    <Pressable accessibilityRole="button" style={styles.button} onPress={() => void onPress()}>
      <Text style={styles.title}>{title}</Text>
    </Pressable>
  );
}

export function Trouble({ problem }: { readonly problem: Problem | null }) {
  return problem === null ? null : <Text accessibilityRole="alert">{wordsFor(problem)}</Text>;
}

function wordsFor(problem: Problem): string {
  switch (problem.is) {
    case "offline":
      return "No network. What is shown may be old.";
    case "unavailable":
      return "The server is busy. Try again in a moment.";
    case "not_stored":
      return "This phone could not store what was read.";
    case "unauthorized":
      return "Sign in again.";
    case "refused":
      return problem.detail;
  }
}

export const styles = StyleSheet.create({
  screen: { flex: 1, gap: 12, padding: 16, backgroundColor: "white" },
  line: { fontSize: 16 },
  choice: { alignItems: "center", flexDirection: "row", justifyContent: "space-between" },
  button: { backgroundColor: "#1f5f4a", borderRadius: 8, padding: 14 },
  title: { color: "white", fontSize: 16, textAlign: "center" },
  input: { borderColor: "#767676", borderRadius: 8, borderWidth: 1, fontSize: 16, padding: 12 },
});

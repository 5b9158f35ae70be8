import { FastbellProvider } from "@fastbell/expo/react";
import { useOpenings } from "@fastbell/expo/router";
import { Stack } from "expo-router";

import { fastbell } from "../src/fastbell";
import { useSession } from "../src/session";

export default function Layout() {
  const isSignedIn = useSession() !== null;
  useOpenings(fastbell, isSignedIn);
  return (
    <FastbellProvider fastbell={fastbell}>
      <Stack>
        <Stack.Protected guard={isSignedIn}>
          <Stack.Screen name="index" options={{ title: "Fast" }} />
          <Stack.Screen name="preferences" options={{ title: "Preferences" }} />
          <Stack.Screen name="phone" options={{ title: "What this phone knows" }} />
          <Stack.Screen name="fasting-sessions/[id]" options={{ title: "Fast" }} />
          <Stack.Screen name="conversations/[id]" options={{ title: "Chat" }} />
          <Stack.Screen name="test-push" options={{ title: "Test" }} />
        </Stack.Protected>
        <Stack.Protected guard={!isSignedIn}>
          <Stack.Screen name="sign-in" options={{ title: "Sign in" }} />
        </Stack.Protected>
      </Stack>
    </FastbellProvider>
  );
}

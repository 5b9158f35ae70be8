// First what must run when a push wakes the app, and what must not miss the tap that started it; then the screens.
import "./src/fastbell";
import "expo-router/entry";

import { listened } from "./phone.ts";

export const addNetworkStateListener = listened("network");

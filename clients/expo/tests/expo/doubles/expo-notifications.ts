import { listened, phone } from "./phone.ts";

export const AndroidImportance = { HIGH: 6, LOW: 4 };
export const setNotificationChannelAsync = async (id: string, { name }: { name: string }) => void phone.channels.push(`${id}: ${name}`);
export const getPermissionsAsync = async () => ({ status: "granted" });
export const requestPermissionsAsync = getPermissionsAsync;
export const setNotificationHandler = (handler: typeof phone.handler) => {
  phone.handler = handler;
};
export const addNotificationResponseReceivedListener = listened("response");
export const getLastNotificationResponse = () => null;
export const clearLastNotificationResponse = () => undefined;
export const getPresentedNotificationsAsync = async () => [];
export const dismissNotificationAsync = async () => undefined;
export const dismissAllNotificationsAsync = async () => {
  phone.dismissedAll += 1;
};
export const setBadgeCountAsync = async () => true;

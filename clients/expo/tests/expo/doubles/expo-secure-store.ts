import { phone } from "./phone.ts";

export const AFTER_FIRST_UNLOCK_THIS_DEVICE_ONLY = 1;
export const getItemAsync = async (key: string) => phone.secrets.get(key) ?? null;
export const setItemAsync = async (key: string, value: string) => {
  if (phone.isLocked) {
    throw new Error("Calling the 'setValueWithKeyAsync' function has failed");
  }
  phone.secrets.set(key, value);
};

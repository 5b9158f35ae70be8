export const getLocales = () => [{ languageTag: "de-AT" }];
export const getCalendars = () => [{ timeZone: "Europe/Vienna" }];

export const nativeApplicationVersion = "1.2.3";
export const ApplicationReleaseType = { SIMULATOR: 1 };
export const getIosPushNotificationServiceEnvironmentAsync = async () => "development";
export const getIosApplicationReleaseTypeAsync = async () => 1;

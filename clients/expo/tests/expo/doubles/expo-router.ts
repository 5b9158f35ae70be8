export const router = {
  isMounted: false,
  path: "/",
  navigated: [] as string[],
};

const navigation = { navigate: (path: string) => void router.navigated.push(path) };

export const useRouter = () => navigation;
export const usePathname = () => router.path;
export const useRootNavigationState = () => (router.isMounted ? { key: "root" } : undefined);

import { phone } from "./phone.ts";

/** A backend that takes all registrations and sign-outs, and has nothing else. */
export async function fetch(input: Request): Promise<Response> {
  const { method, url } = input;
  const text = await input.text();
  const path = new URL(url).pathname;
  phone.requests.push({ method, path, body: text === "" ? null : (JSON.parse(text) as Record<string, unknown>) });
  if (path.startsWith("/v1/device-tokens/")) {
    return Response.json({ installation_id: path.split("/").at(-1) });
  }
  return path === "/v1/sign-outs" ? new Response(null, { status: 204, headers: { fastbell: "1" } }) : new Response(null, { status: 503 });
}

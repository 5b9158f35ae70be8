/** Registrations and sign-outs on the wire. */

import { ours } from "./answers.ts";
import { type Api, outcome } from "./api.ts";
import type { Registrar } from "./ports.ts";
import type { Problem } from "./problems.ts";
import type { PutOutcome, Registration } from "./registration.ts";
import type { components } from "./schema.d.ts";

export interface RegistrarOptions {
  readonly api: Api;
  readonly appId: string | null;
  /** Whose bearer token the API sends at present: an app may have changed accounts since the registration was begun. */
  signedIn(): string | null;
}

type Body = components["schemas"]["RegistrationIn"];

const TAKEN = "urn:fastbell:problem:installation-taken";
const SPENT = "urn:fastbell:problem:ticket-spent";
const OUTDATED = "urn:fastbell:problem:registration-outdated";

export function createRegistrar(options: RegistrarOptions): Registrar {
  const { client, anonymous } = options.api;
  return {
    async put(registration): Promise<PutOutcome> {
      if (options.signedIn() !== registration.userId) {
        return { is: "lost", reason: "another person is signed in", retryAfter: 0 };
      }
      const path = { installation_id: registration.installationId };
      const body = bodyOf(registration, options.appId);
      const put = await outcome(client.PUT("/v1/device-tokens/{installation_id}", { params: { path }, body }), ours.token);
      return put.ok ? { is: "taken" } : outcomeOf(put.problem);
    },
    async signOut(debt) {
      const body = { installation_id: debt.installationId, ticket: debt.ticket };
      const paid = await outcome(anonymous.POST("/v1/sign-outs", { body }), ours.nothing);
      if (paid.ok) {
        return true;
      }
      const { problem } = paid;
      if (problem.is === "refused" && problem.status === 422) {
        return true; // this ticket will be refused for ever
      }
      return { retryAfter: problem.is === "unavailable" ? problem.retryAfter : 0 };
    },
  };
}

function bodyOf({ token, facts, signOutDigest, sequence, formerTicket }: Registration, appId: string | null): Body {
  return {
    provider: token.provider,
    token: token.token,
    environment: token.environment,
    app_id: appId,
    locale: facts.locale,
    time_zone: facts.timeZone,
    app_version: facts.appVersion,
    os_version: facts.osVersion,
    permission: facts.permission,
    public_key: facts.publicKey,
    sign_out_digest: signOutDigest,
    sequence,
    former_ticket: formerTicket,
  };
}

function outcomeOf(problem: Problem): PutOutcome {
  switch (problem.is) {
    case "offline":
    case "not_stored":
      return { is: "lost", reason: problem.detail, retryAfter: 0 };
    case "unavailable":
      return { is: "lost", reason: `answered ${problem.status}`, retryAfter: problem.retryAfter };
    case "unauthorized":
      return { is: "unauthorized" };
    case "refused":
      if (problem.status === 404 || problem.type === TAKEN) {
        return { is: "not_ours" };
      }
      if (problem.type === SPENT) {
        return { is: "spent" };
      }
      if (problem.type === OUTDATED) {
        return { is: "outdated" };
      }
      if (problem.status === 409) {
        return { is: "lost", reason: problem.type, retryAfter: 60_000 }; // being erased, say: it passes
      }
      return { is: "refused", problem: { status: problem.status, type: problem.type, detail: problem.detail } };
  }
}

export { randomUUID, randomBytes as getRandomBytes } from "node:crypto";

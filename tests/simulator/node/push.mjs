// Sends what it reads from its input with @parse/node-apn, and writes what came of it. Argument: where that is installed.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const apn = createRequire(`${process.argv[2]}/`)('@parse/node-apn');
const { provider: options, bursts } = JSON.parse(readFileSync(0, 'utf8'));

const provider = new apn.Provider(options);
const notification = ({ token, ...fields }) => Object.assign(new apn.Notification(), fields);
const results = [];
for (const burst of bursts) {
  results.push(...(await Promise.all(burst.map((send) => provider.send(notification(send), send.token)))));
}
await provider.shutdown();

const failure = ({ device, status, response, error }) => ({ device, status, response, error: error?.message });
console.log(JSON.stringify(results.map(({ sent, failed }) => ({ sent, failed: failed.map(failure) }))));

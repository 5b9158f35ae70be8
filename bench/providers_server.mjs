// Answers as APNs, FCM and Google's OAuth do when all is well: HTTP/2 and HTTP/1.1 on one TLS port.
//
// With two ports it listens on them, and tells on the second which pushes arrived, as the simulator does: GET /requests.
// Without, it chooses a port and prints it, keeps nothing, and ends with its input.
import { readFileSync } from 'node:fs';
import { createServer as createHttp1 } from 'node:http';
import { createServer as createHttp2 } from 'node:http2';
import { createServer as createTls } from 'node:tls';

const [certificate, key, port, toldOn] = process.argv.slice(2);
const JSON_TYPE = 'application/json; charset=UTF-8';
const ACCEPTED = '{\n  "name": "projects/fastbell-demo/messages/0:1790000000000000%31bd1c9631bd1c96"\n}\n';
const ACCESS = JSON.stringify({ access_token: `ya29.${'x'.repeat(200)}`, expires_in: 3599, token_type: 'Bearer' });
const TO_APPLE = '/3/device/';
const WINDOW = 16 * 1024 * 1024; // bytes under way on one connection

const arrived = []; // [milliseconds, path, body]; the body is read when somebody asks

const bodyFor = (path) => (path === '/token' ? ACCESS : ACCEPTED);

const http2 = createHttp2({ settings: { maxConcurrentStreams: 1000 } });
http2.on('session', (session) => session.setLocalWindowSize(WINDOW));
http2.on('stream', (stream, headers) => {
  const path = headers[':path'];
  const isApples = path.startsWith(TO_APPLE);
  const pieces = [];
  stream.on('error', () => {}); // a sender that left
  stream.on('end', () => {
    if (toldOn) arrived.push([Date.now(), path, isApples ? null : Buffer.concat(pieces)]);
    if (stream.destroyed) return;
    if (isApples) {
      stream.respond({ ':status': 200, 'apns-id': headers['apns-id'] }, { endStream: true });
    } else {
      stream.respond({ ':status': 200, 'content-type': JSON_TYPE });
      stream.end(bodyFor(path));
    }
  });
  if (toldOn && !isApples) stream.on('data', (piece) => pieces.push(piece));
  else stream.resume();
});

const http1 = createHttp1({ keepAliveTimeout: 600_000 }, (request, response) => {
  request.on('end', () => {
    response.writeHead(200, { 'content-type': JSON_TYPE });
    response.end(bodyFor(request.url));
  });
  request.resume();
});

const tls = createTls({
  ALPNProtocols: ['h2', 'http/1.1'],
  cert: readFileSync(certificate),
  key: readFileSync(key),
});
tls.on('secureConnection', (socket) => {
  socket.on('error', () => {});
  socket.setNoDelay(true);
  (socket.alpnProtocol === 'h2' ? http2 : http1).emit('connection', socket);
});

function told([at, path, body], number) {
  const provider = path.startsWith(TO_APPLE) ? 'apns' : 'fcm';
  const token = body === null ? path.slice(TO_APPLE.length) : JSON.parse(body).message.token;
  return { number, provider, token, status: 200, received_at: new Date(at).toISOString() };
}

if (toldOn) {
  const teller = createHttp1((request, response) => {
    const asked = new URL(request.url, 'http://localhost').searchParams;
    const after = Number(asked.get('after') ?? 0);
    const page = arrived.slice(after, after + Number(asked.get('limit') ?? 100));
    response.writeHead(200, { 'content-type': JSON_TYPE });
    response.end(JSON.stringify({ items: page.map((each, index) => told(each, after + index + 1)) }));
  });
  tls.listen(Number(port), '127.0.0.1', 1024, () => teller.listen(Number(toldOn), '127.0.0.1'));
  for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => process.exit(0));
} else {
  tls.listen(0, '127.0.0.1', 1024, () => console.log(tls.address().port));
  process.stdin.on('end', () => process.exit(0)).resume();
}

// Answers as APNs, FCM and Google's OAuth do when all is well: HTTP/2 and HTTP/1.1 on one TLS port. Ends with its input.
import { readFileSync } from 'node:fs';
import { createServer as createHttp1 } from 'node:http';
import { createServer as createHttp2 } from 'node:http2';
import { createServer as createTls } from 'node:tls';

const [certificate, key] = process.argv.slice(2);
const JSON_TYPE = 'application/json; charset=UTF-8';
const ACCEPTED = '{\n  "name": "projects/fastbell-demo/messages/0:1790000000000000%31bd1c9631bd1c96"\n}\n';
const ACCESS = JSON.stringify({ access_token: `ya29.${'x'.repeat(200)}`, expires_in: 3599, token_type: 'Bearer' });

const bodyFor = (path) => (path === '/token' ? ACCESS : ACCEPTED);

const http2 = createHttp2({ settings: { maxConcurrentStreams: 1000 } });
http2.on('stream', (stream, headers) => {
  stream.on('error', () => {}); // a sender that left
  stream.on('end', () => {
    if (stream.destroyed) return;
    if (headers[':path'].startsWith('/3/device/')) {
      stream.respond({ ':status': 200, 'apns-id': headers['apns-id'] }, { endStream: true });
    } else {
      stream.respond({ ':status': 200, 'content-type': JSON_TYPE });
      stream.end(bodyFor(headers[':path']));
    }
  });
  stream.resume();
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
tls.listen(0, '127.0.0.1', 1024, () => console.log(tls.address().port));
process.stdin.on('end', () => process.exit(0)).resume();

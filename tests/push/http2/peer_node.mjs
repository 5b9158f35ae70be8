// An HTTP/2 server that shares no code with us: Node's own, on nghttp2. A request's path says what to do with it.
// Arguments: certificate, key, stream limit at first. Ends with its input.
import { readFileSync } from 'node:fs';
import { constants, createSecureServer } from 'node:http2';

const [certificate, key, limit] = process.argv.slice(2);
const PIECE = '{"reason":"BadDeviceToken",';
const server = createSecureServer({
  cert: readFileSync(certificate),
  key: readFileSync(key),
  settings: { maxConcurrentStreams: Number(limit) },
});
let sessions = 0;

server.on('session', (session) => {
  sessions += 1;
  Object.assign(session, { number: sessions, open: 0, most: 0, requests: 0, held: [] });
  session.on('error', () => {});
});

const answer = (stream, status, body = '', more = {}) => {
  if (stream.destroyed) return;
  const { number, most, requests } = stream.session;
  const told = { 'x-session': number, 'x-most-open': most, 'x-requests': requests };
  stream.respond({ ':status': status, ...told, ...more });
  stream.end(body);
};

const reactions = {
  ok: (stream) => answer(stream, 200),
  echo: (stream, _, body) => answer(stream, 200, body),
  error: (stream) => answer(stream, 400, '{"reason":"BadDeviceToken"}'),
  large: (stream, size) => answer(stream, 500, 'x'.repeat(Number(size))),
  slow: (stream, ms) => setTimeout(answer, Number(ms), stream, 200),
  silent: () => {},
  hold: (stream) => stream.session.held.push(stream),
  // the answer to this request, and to those held before it, comes after GOAWAY
  goaway: (stream) => {
    const { session } = stream;
    session.goaway(constants.NGHTTP2_NO_ERROR, stream.id, Buffer.from('{"reason":"Shutdown"}'));
    const spared = session.held.filter((held) => held.id < stream.id);
    setTimeout(() => [...spared, stream].forEach((left) => answer(left, 200)), 50);
  },
  shutdown: (stream) => {
    stream.session.close(); // Node's own graceful way
    setTimeout(answer, 50, stream, 200);
  },
  refused: (stream) => stream.close(constants.NGHTTP2_REFUSED_STREAM),
  broken: (stream) => stream.close(constants.NGHTTP2_INTERNAL_ERROR),
  limit: (stream, streams) => {
    stream.session.settings({ maxConcurrentStreams: Number(streams) });
    answer(stream, 200);
  },
  split: (stream) => {
    stream.respond({ ':status': 400 });
    const pieces = [PIECE, '', '"timestamp":', '17', '}'];
    const next = () => (pieces.length ? stream.write(pieces.shift(), () => setTimeout(next, 5)) : stream.end());
    next();
  },
  early: (stream) => {
    stream.additionalHeaders({ ':status': 103 });
    stream.respond({ ':status': 200 }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'x-after': 'all' }));
    stream.end('done');
  },
  cut: (stream) => stream.session.destroy(),
};

server.on('stream', (stream, headers) => {
  const { session } = stream;
  session.open += 1;
  session.requests += 1;
  session.most = Math.max(session.most, session.open);
  stream.on('close', () => { session.open -= 1; });
  stream.on('error', () => {});
  const body = [];
  stream.on('data', (piece) => body.push(piece));
  stream.on('end', () => {
    const [, reaction, argument] = headers[':path'].split('/');
    reactions[reaction](stream, argument, Buffer.concat(body));
  });
});

server.listen(0, '127.0.0.1', () => console.log(server.address().port));
process.stdin.on('end', () => process.exit(0)).resume();

// The mapping as a typical serverless function, here run as a server; the benchmark compares the filter with it. It does
// not keep the event's bytes, and accepts everything that JSON.parse accepts.
'use strict';

const crypto = require('node:crypto');
const http = require('node:http');

const { SEGMENT_URL, SEGMENT_WRITE_KEY, STIGG_WEBHOOK_SECRET, STIGG_WEBHOOK_SECRET_PREVIOUS } = process.env;
const SECRETS = [STIGG_WEBHOOK_SECRET, STIGG_WEBHOOK_SECRET_PREVIOUS].filter(Boolean).map((secret) => Buffer.from(secret));
const sha256 = (text) => crypto.createHash('sha256').update(text).digest('hex');
const SOURCE = sha256(SEGMENT_WRITE_KEY).slice(0, 8);
const AUTHORIZATION = `Basic ${Buffer.from(`${SEGMENT_WRITE_KEY}:`).toString('base64')}`;
const LIBRARY = { name: 'stigg-segment-filter', version: '0.2.0' };
const MAX_BODY_BYTES = 512 * 1024;
const MAX_EVENT_BYTES = 32 * 1024;
const DATE_TIME = /^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d(:\d\d(\.\d+)?)?([Zz]|[+-]\d\d:?\d\d)$/;

const agent = new http.Agent({ keepAlive: true });
const track = new URL('/v1/track', SEGMENT_URL);

function isSecret(value) {
  const presented = Buffer.from(value ?? '');
  return SECRETS.some((secret) => secret.length === presented.length && crypto.timingSafeEqual(secret, presented));
}

class Rejection extends Error {
  constructor(status, code, message) {
    super(message);
    Object.assign(this, { status, code });
  }
}

function parse(body) {
  if (body.length === 0) throw new Rejection(400, 'empty_body', 'The body is empty.');
  let event;
  try {
    event = JSON.parse(body.toString());
  } catch {
    throw new Rejection(400, 'malformed_json', 'The body is not JSON.');
  }
  if (event === null || typeof event !== 'object' || Array.isArray(event)) {
    throw new Rejection(400, 'not_an_object', 'The body is not a JSON object.');
  }
  return event;
}

// The track call for an event; undefined if it is not about a customer.
function map(body) {
  const event = parse(body);
  const id = event.customer?.id;
  if (!id) return undefined;
  if (typeof id !== 'string' && typeof id !== 'number') {
    throw new Rejection(400, 'invalid_customer_id', "The customer's id is neither a string nor a number.");
  }
  if (typeof event.type !== 'string' || event.type === '') {
    throw new Rejection(400, 'invalid_type', 'type is not a non-empty string.');
  }
  const own = typeof event.messageId === 'string' && event.messageId !== '' && event.messageId.length <= 85;
  const day = [event.messageId, event.timestamp].every((it) => it == null || it === '') ? `\n${Math.floor(Date.now() / 86_400_000)}` : '';
  const call = JSON.stringify({
    event: event.type.replaceAll('.', '_'),
    userId: String(id),
    messageId: `stigg-${SOURCE}-${own ? event.messageId : `sha256-${sha256(body + day)}`}`,
    timestamp: DATE_TIME.test(event.timestamp) ? event.timestamp : undefined,
    context: { library: LIBRARY },
    properties: event,
  });
  if (Buffer.byteLength(call) > MAX_EVENT_BYTES) {
    throw new Rejection(413, 'call_too_large', 'The track call for this event is too large for Segment.');
  }
  return call;
}

function send(call) {
  return new Promise((resolve, reject) => {
    const headers = {
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(call),
      'user-agent': `${LIBRARY.name}/${LIBRARY.version}`,
      authorization: AUTHORIZATION,
    };
    const request = http.request(track, { method: 'POST', agent, headers }, async (response) => {
      try {
        resolve({ status: response.statusCode, body: await read(response) });
      } catch (error) {
        reject(error);
      }
    });
    request.on('error', reject);
    request.end(call);
  });
}

async function read(stream) {
  const chunks = [];
  let size = 0;
  for await (const chunk of stream) {
    size += chunk.length;
    if (size > MAX_BODY_BYTES) throw new Rejection(413, 'body_too_large', 'The body is too large.');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

async function serve(request) {
  if (!isSecret(request.headers['stigg-webhooks-secret'])) {
    throw new Rejection(401, 'unauthorized', 'The secret is missing or wrong.');
  }
  const call = map(await read(request));
  return call === undefined ? { status: 204 } : send(call);
}

const server = http.createServer(async (request, response) => {
  let answer;
  try {
    answer = await serve(request);
  } catch (error) {
    const { status = 502, code = 'unavailable', message } = error;
    answer = { status, body: JSON.stringify({ code, message }) };
  }
  const { status, body } = answer;
  const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body ?? '') };
  response.writeHead(status, body === undefined ? {} : headers).end(body);
});

server.keepAliveTimeout = 75_000; // longer than Envoy keeps a connection
server.listen(0, '127.0.0.1', () => console.log(`listening on 127.0.0.1:${server.address().port}`));

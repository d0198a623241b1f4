/** The server that the page comes from and reports to. */
import { readdirSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { golden } from '../golden-files.js';
import type { Report } from './report.js';

// Both together make the page cross-origin isolated: it then has SharedArrayBuffer.
const isolated = { 'cross-origin-opener-policy': 'same-origin', 'cross-origin-embedder-policy': 'require-corp' };

const goldenPaths = (): string[] =>
  readdirSync(new URL('../golden/', import.meta.url), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.br'))
    .map((file) => file.slice(0, -'.br'.length))
    .sort();

export interface Listener {
  onReport(report: Report): void;
  /** The page was left, or its process has died. */
  onGone(): void;
}

/** Serves the script in a page on a free port of this machine. */
export async function serve(script: string, { onReport, onGone }: Listener): Promise<{ url: string; close(): void }> {
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const path = decodeURIComponent(request.url!);
    const send = (type: string, body: string | Uint8Array): void => void response.writeHead(200, { 'content-type': type, ...isolated }).end(body);
    if (path === '/') return send('text/html', '<!doctype html><meta charset="utf-8"><script type="module" src="tests.js"></script>');
    if (path === '/tests.js') return send('text/javascript', script);
    if (path === '/golden/') return send('application/json', JSON.stringify(goldenPaths()));
    if (path.startsWith('/golden/')) return send('application/octet-stream', golden(path.slice('/golden/'.length)));
    if (path === '/alive') {
      response.on('close', onGone).writeHead(200, { 'content-type': 'text/plain', ...isolated }).flushHeaders();
      return;
    }
    if (path === '/report') {
      onReport(JSON.parse(await text(request)));
      return send('text/plain', '');
    }
    response.writeHead(404).end();
  };
  const server = createServer((request, response) => {
    answer(request, response).catch((error) => response.writeHead(500).end(String(error)));
  });
  await new Promise<void>((resolve, reject) => server.on('error', reject).listen(0, '127.0.0.1', resolve));
  const close = (): void => {
    server.close();
    server.closeAllConnections();
  };
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`, close };
}

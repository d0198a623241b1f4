/** The built page, as a server anywhere would give it out: below a path of its own, with a policy that lets nothing else in. */
import { createReadStream, existsSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { extname, join } from 'node:path';
import { pipeline } from 'node:stream';

const policy = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src data:";
const types: { readonly [extension: string]: string } = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.json': 'application/json', '.txt': 'text/plain' };

export interface Site {
  readonly url: string;
  /** Ends each .safetensors after so many bytes for now: what follows comes when it is let go. */
  hold(bytes: number): void;
  release(): void;
  close(): void;
}

export async function serveSite(folder: string): Promise<Site> {
  let held: { readonly bytes: number; readonly released: Promise<void>; readonly release: () => void } | undefined;
  const server = createServer((request, response) => {
    const path = new URL(request.url!, 'http://site').pathname.replace(/^\/some\/where\//, '');
    const file = join(folder, path === '' ? 'index.html' : path);
    if (!request.url!.startsWith('/some/where/') || !existsSync(file)) return void response.writeHead(404).end();
    const { size } = statSync(file);
    response.writeHead(200, { 'content-type': types[extname(file)] ?? 'application/octet-stream', 'content-length': size, 'content-security-policy': policy });
    const send = (start: number): void => pipeline(createReadStream(file, { start }), response, () => {}) && undefined;
    if (held === undefined || extname(file) !== '.safetensors') return send(0);
    const { bytes, released } = held;
    createReadStream(file, { end: bytes - 1 }).on('data', (chunk) => response.write(chunk)).on('end', () => void released.then(() => send(bytes)));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/some/where/`,
    hold(bytes) {
      let release = (): void => {};
      const released = new Promise<void>((resolve) => (release = resolve));
      held = { bytes, released, release };
    },
    release() {
      held?.release();
      held = undefined;
    },
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}

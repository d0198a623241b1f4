/** A page with the packed package, as each bundler makes it of the installed one, behind a server that sends what headers a test wants. */
import { readFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { extname, join } from 'node:path';
import { build as esbuild } from 'esbuild';
import { build as viteBuild, createLogger, createServer as viteServer, type Logger, type Plugin } from 'vite';
import webpack from 'webpack';
import { entries, type Project } from './project.js';

export interface Site {
  readonly port: number;
  /** Sent with every answer from now on. */
  headers: Readonly<Record<string, string>>;
  close(): Promise<void>;
}

/** A host that is no machine's own: a page from there is not a secure context. */
export const INSECURE_HOST = 'fp8-kv.test';

const html = (script: string): string => `<!doctype html><html lang="en"><meta charset="utf-8"><title>fp8-kv</title>${script}</html>`;

/** The page's script: each entry with all that it has, and the program. */
const main = `${entries.map((entry, i) => `import * as entry${i} from '${entry}';`).join('\n')}
import { wasmBackend, requestWebgpuBackend } from 'fp8-kv';
import { compute } from './program.js';
globalThis.consumer = {
  compute,
  wasmBackend,
  requestWebgpuBackend,
  names: { ${entries.map((entry, i) => `'${entry}': Object.keys(entry${i}).sort()`).join(', ')} },
};
`;

const types: { readonly [extension: string]: string } = { '.html': 'text/html', '.js': 'text/javascript' };

async function serve(folder: string): Promise<Site> {
  const server: Server = createServer((request, response) => {
    const path = request.url === '/' ? '/index.html' : request.url!;
    try {
      const body = readFileSync(join(folder, path));
      response.writeHead(200, { 'content-type': types[extname(path)], ...site.headers }).end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise<void>((resolve, reject) => server.on('error', reject).listen(0, '127.0.0.1', resolve));
  const site: Site = {
    port: (server.address() as AddressInfo).port,
    headers: {},
    async close() {
      server.close();
      server.closeAllConnections();
    },
  };
  return site;
}

/** A bundler's warning is a failure: a new user would see it. */
function strict(what: string, warnings: readonly unknown[]): void {
  if (warnings.length > 0) throw new Error(`${what} warns: ${warnings.map((warning) => (typeof warning === 'string' ? warning : JSON.stringify(warning))).join('\n')}`);
}

function collecting(warnings: string[]): Logger {
  const logger = createLogger('silent');
  const warn = (message: string): void => void warnings.push(message);
  return { ...logger, warn, warnOnce: warn, error: warn };
}

async function withEsbuild({ folder }: Project): Promise<Site> {
  const outdir = join(folder, 'esbuild');
  const { warnings } = await esbuild({ entryPoints: [join(folder, 'main.js')], bundle: true, minify: true, format: 'esm', outdir, logLevel: 'silent' });
  strict('esbuild', warnings);
  await writeFile(join(outdir, 'index.html'), html('<script type="module" src="main.js"></script>'));
  return serve(outdir);
}

async function withVite({ folder }: Project): Promise<Site> {
  const warnings: string[] = [];
  const outDir = join(folder, 'vite');
  // Its hint that a chunk is large is about a page that takes everything, which is what is wanted here.
  await viteBuild({ root: folder, configFile: false, logLevel: 'warn', customLogger: collecting(warnings), build: { outDir, chunkSizeWarningLimit: 1000 } });
  strict('Vite', warnings);
  return serve(outDir);
}

async function withViteDev({ folder }: Project): Promise<Site> {
  const warnings: string[] = [];
  const headers: Plugin = {
    name: 'headers',
    configureServer: ({ middlewares }) =>
      void middlewares.use((_request, response, next) => {
        for (const [name, value] of Object.entries(site.headers)) response.setHeader(name, value);
        next();
      }),
  };
  const server = await viteServer({
    root: folder,
    configFile: false,
    customLogger: collecting(warnings),
    plugins: [headers],
    server: { host: '127.0.0.1', port: 0, allowedHosts: [INSECURE_HOST] },
  });
  await server.listen();
  const site: Site = {
    port: (server.httpServer!.address() as AddressInfo).port,
    headers: {},
    async close() {
      await server.close();
      strict("Vite's server", warnings);
    },
  };
  return site;
}

async function withWebpack({ folder }: Project): Promise<Site> {
  const path = join(folder, 'webpack');
  const stats = await new Promise<webpack.Stats>((resolve, reject) =>
    // Its hint that a script is large is left out for the same reason.
    webpack({ mode: 'production', context: folder, entry: './main.js', output: { path, filename: 'main.js' }, performance: { hints: false } }, (error, result) => (error ? reject(error) : resolve(result!))),
  );
  const { errors = [], warnings = [] } = stats.toJson({ all: false, errors: true, warnings: true });
  strict('webpack', [...errors, ...warnings].map(({ message }) => message));
  await mkdir(path, { recursive: true });
  await writeFile(join(path, 'index.html'), html('<script defer src="main.js"></script>'));
  return serve(path);
}

export const bundlers: { readonly [name: string]: (project: Project) => Promise<Site> } = {
  esbuild: withEsbuild,
  Vite: withVite,
  "Vite's dev server": withViteDev,
  webpack: withWebpack,
};

/** Writes what the bundlers begin with. */
export function writeSources(project: Project): void {
  project.write('main.js', main);
  project.write('index.html', html('<script type="module" src="/main.js"></script>'));
}

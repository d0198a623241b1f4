/** Test files as one script for a page. */
import { SourceMap } from 'node:module';
import { fileURLToPath } from 'node:url';
import { build, type Plugin } from 'esbuild';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** Modules for Node only, and what stands for them in a page. */
const twins: Plugin = {
  name: 'twins',
  setup({ onResolve }) {
    onResolve({ filter: /\/golden-files\.js$/ }, () => ({ path: `${root}tests/browser/golden-files.ts` }));
  },
};

export interface Bundle {
  readonly script: string;
  /** Puts source positions in place of the script's, as in the stack of an error. */
  readonly locate: (text: string) => string;
}

export async function bundle(files: readonly string[], requireGpu: boolean): Promise<Bundle> {
  const load = files.map((file) => `${JSON.stringify(file)}: () => import(${JSON.stringify(`./tests/${file}`)})`);
  const { outputFiles } = await build({
    stdin: { contents: `import { runFiles } from './tests/browser/page.js';\nawait runFiles({ ${load.join(', ')} }, ${requireGpu});`, resolveDir: root, loader: 'ts' },
    bundle: true,
    format: 'esm',
    platform: 'browser',
    sourcemap: 'external',
    // Not written: the positions in its map are relative to it.
    outfile: `${root}tests.js`,
    write: false,
    logLevel: 'silent',
    plugins: [twins],
  });
  const output = (suffix: string): string => outputFiles.find(({ path }) => path.endsWith(suffix))!.text;
  const map = new SourceMap(JSON.parse(output('.map')));
  const locate = (text: string): string =>
    text.replaceAll(/http:\/\/[\w.:]+\/tests\.js:(\d+):(\d+)/g, (position, line, column) => {
      const entry = map.findEntry(line - 1, column - 1);
      return 'originalSource' in entry ? `${entry.originalSource}:${entry.originalLine + 1}:${entry.originalColumn + 1}` : position;
    });
  return { script: output('.js'), locate };
}

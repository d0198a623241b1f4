/** What each entry of the packed package adds to a page. */
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import { ok } from 'uvu/assert';
import { suite } from '../suite.js';
import { entries, project, type Project } from './project.js';

/** The most bytes that an entry may take with all that it exports, minified and compressed. */
const budgets: { readonly [entry: string]: number } = {
  'fp8-kv': 150_000,
  'fp8-kv/oracle': 75_000,
  'fp8-kv/ort': 40_000,
  'fp8-kv/transformers': 75_000,
};

const test = suite('package: sizes');
let packed: Project;
test.before(async () => {
  packed = await project();
});

/** Bytes of a program that imports the package, bundled for browsers and compressed. */
async function bundledBytes(program: string): Promise<number> {
  const { outputFiles } = await build({
    stdin: { contents: program, resolveDir: packed.folder },
    bundle: true,
    minify: true,
    format: 'esm',
    platform: 'browser',
    write: false,
    logLevel: 'silent',
  });
  return gzipSync(outputFiles[0].contents, { level: 9 }).length;
}

for (const entry of entries) {
  test(`${entry}: all of it is within its budget`, async () => {
    const budget = budgets[entry];
    ok(budget !== undefined, `${entry} has no budget`);
    const bytes = await bundledBytes(`import * as all from '${entry}'; console.log(all);`);
    ok(bytes < budget, `${bytes} of ${budget} bytes`);
    // It is what it is said to be.
    ok(bytes > 1_000, `${bytes} bytes`);
  });
}

test('the codec alone takes less than 25 kB', async () => {
  const bytes = await bundledBytes("import { encode, decode, quantize } from 'fp8-kv'; console.log(encode, decode, quantize);");
  ok(bytes < 25_000 && bytes > 5_000, `${bytes} bytes`);
});

test('what is not used takes nothing', async () => {
  for (const entry of entries) {
    const bytes = await bundledBytes(`import '${entry}';`);
    ok(bytes < 100, `${entry}: ${bytes} bytes`);
  }
});

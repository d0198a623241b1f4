/**
 * layout.ts → build/params.ts (what the kernels know of it) → asc → build/*.wasm → src/generated/wasm.ts and codec.ts.
 * assembly/model/ → build/model.wasm → src/generated/model.ts.
 * wgsl/*.wgsl → src/generated/wgsl.ts. src/wasm/threads/worker.ts → src/generated/worker.ts.
 * The modules are embedded as base64, and the worker as its source: `new URL('x.wasm', import.meta.url)` dangles in bundlers.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, sep } from 'node:path';
import ts from 'typescript';
import { floatDtypes, formats } from '../src/formats.js';
import { appendParams, attendParams, attendScratch, BLOCK_ROWS, CUT_KEYS, PANEL_ROW_BYTES, PANEL_TOKENS, PARTIAL_WORDS, quantizeParams, ROW_FLOATS, ROW_WORDS, ROWS_AT_ONCE, sideParams, TILE_KEYS, UNIT_WORDS, WORK_WORDS, type ParamRecord } from '../src/layout.js';
import { quotients, scalePrecisions } from '../src/recipe.js';
import { applyPatch } from '../src/wasm/patch.js';
import { makePatch } from './patch.js';

const MADE_BY = '// Made by scripts/build.ts from src/layout.ts. Do not edit.\n';
const assemblyTypes = { pointer: 'usize', i32: 'i32', u32: 'u32', f32: 'f32' } as const;

function paramClass(name: string, record: ParamRecord): string {
  const fields = Object.entries(record).map(([field, type]) => `  ${field}: ${assemblyTypes[type]};`);
  return `@unmanaged\nexport class ${name} {\n${fields.join('\n')}\n}\n`;
}

function constants(values: Record<string, number>): string {
  return Object.entries(values)
    .map(([name, value]) => `export const ${name}: i32 = ${value};\n`)
    .join('');
}

/** { e4m3fn: { id: 0 } } → FORMAT_E4M3FN: 0, so that the kernels name what the host numbers. */
function named(prefix: string, numbers: Record<string, number>): Record<string, number> {
  return Object.fromEntries(Object.entries(numbers).map(([name, id]) => [`${prefix}_${name.replace(/[A-Z]/g, '_$&').replaceAll('-', '_').toUpperCase()}`, id]));
}

const idsOf = (facts: Record<string, { readonly id: number }>): Record<string, number> =>
  Object.fromEntries(Object.entries(facts).map(([name, { id }]) => [name, id]));

/** Runs asc as a user would; its binary is found where Node resolves the package. */
function compile(...options: string[]): void {
  const asc = join(dirname(createRequire(import.meta.url).resolve('assemblyscript/package.json')), 'bin', 'asc.js');
  execFileSync(process.execPath, [asc, ...options], { stdio: 'inherit' });
}

// What was deleted from src/ must not live on in the package.
rmSync('dist', { recursive: true, force: true });
mkdirSync('build', { recursive: true });
mkdirSync('src/generated', { recursive: true });
writeFileSync(
  'build/params.ts',
  [
    MADE_BY,
    constants({ ROWS_AT_ONCE, PANEL_TOKENS, PANEL_ROW_BYTES, TILE_KEYS, CUT_KEYS, BLOCK_ROWS, ROW_FLOATS, ROW_WORDS, WORK_WORDS, UNIT_WORDS, PARTIAL_WORDS }),
    constants(named('SCRATCH', attendScratch)),
    constants(named('FORMAT', idsOf(formats))),
    constants(named('DTYPE', idsOf(floatDtypes))),
    constants(named('QUOTIENT', quotients)),
    constants(named('PRECISION', scalePrecisions)),
    paramClass('QuantizeParams', quantizeParams),
    paramClass('AppendParams', appendParams),
    paramClass('SideParams', sideParams),
    paramClass('AttendParams', attendParams),
  ].join('\n'),
);
/** How every module begins its import of memory: with a largest size, and unshared. */
const MEMORY_IMPORT = Buffer.from('\x03env\x06memory\x02\x01', 'latin1');

/** Where the byte is that says whether the imported memory is shared: that alone tells the two forms of a module apart. */
function sharedFlag(wasm: Buffer): number {
  const at = wasm.indexOf(MEMORY_IMPORT);
  if (at < 0 || wasm.indexOf(MEMORY_IMPORT, at + 1) >= 0) throw new Error('the module does not import its memory as expected');
  return at + MEMORY_IMPORT.length - 1;
}

/** Comments are for who reads the source: they need not travel. */
function withoutComments(source: string): string {
  return source.replaceAll(/^\s*\/\/.*\n/gm, '').replaceAll(/\s*\/\/.*$/gm, '');
}

const [baseline, relaxed] = (['baseline', 'relaxed'] as const).map((build) => {
  compile('--target', build);
  return readFileSync(`build/${build}.wasm`);
});
const patch = makePatch(baseline, relaxed);
if (!relaxed.equals(applyPatch(baseline, patch, relaxed.length))) throw new Error('the patch does not make the relaxed build of the baseline');
writeFileSync(
  'src/generated/wasm.ts',
  `// Made by scripts/build.ts from assembly/. Do not edit.
export const baseline = {
  sharedFlag: ${sharedFlag(baseline)},
  base64:
    '${baseline.toString('base64')}',
};
/** What differs from it: see src/wasm/patch.ts. */
export const relaxed = {
  sharedFlag: ${sharedFlag(relaxed)},
  bytes: ${relaxed.length},
  patch:
    '${Buffer.from(patch).toString('base64')}',
};
`,
);

compile('--config', 'assembly/codec-module.asconfig.json', '--target', 'codec');
writeFileSync('src/generated/codec.ts', `// Made by scripts/build.ts from assembly/codec-module.ts. Do not edit.\nexport const codecWasm =\n  '${readFileSync('build/codec.wasm', 'base64')}';\n`);

/** The runner's kernels are a module of their own: whoever imports the package does not carry them. */
compile('--config', 'assembly/model/asconfig.json', '--target', 'model');
writeFileSync('src/generated/model.ts', `// Made by scripts/build.ts from assembly/model/. Do not edit.\nexport const modelWasm =\n  '${readFileSync('build/model.wasm', 'base64')}';\n`);

/** The GPU's kernels by path, without .wgsl. */
const shaders = readdirSync('wgsl', { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.wgsl')).sort();
writeFileSync(
  'src/generated/wgsl.ts',
  `// Made by scripts/build.ts from wgsl/. Do not edit.\nexport const wgsl = {\n${shaders
    .map((file) => `  '${file.split(sep).join('/').replace(/\.wgsl$/, '')}': ${JSON.stringify(withoutComments(readFileSync(join('wgsl', file), 'utf8')))},\n`)
    .join('')}};\n`,
);

/** A module that imports nothing at run time, as a script: what it exports are globals there. */
function asScript(file: string): string {
  const { outputText } = ts.transpileModule(readFileSync(file, 'utf8'), {
    compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext, removeComments: true },
  });
  const script = outputText.replaceAll(/^export (?=const|function)/gm, '');
  if (/^\s*(import|export)\b/m.test(script)) throw new Error(`${file} expected to import nothing, and to export constants and functions only`);
  return script;
}
writeFileSync(
  'src/generated/worker.ts',
  `// Made by scripts/build.ts from src/wasm/threads/worker.ts. Do not edit.\nexport const workerSource = ${JSON.stringify(asScript('src/wasm/threads/worker.ts'))};\n`,
);

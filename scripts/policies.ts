/** Prints what the code allows into docs/policies.md, between its marks: `node --import tsx scripts/policies.ts`. A test compares. */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { formats, type Format } from '../src/formats.js';
import { allowedPolicies, granularities } from '../src/policies.js';
import { presets, type Preset } from '../src/presets.js';
import type { Granularity } from '../src/layout.js';

export const policiesFile = fileURLToPath(new URL('../docs/policies.md', import.meta.url));

const row = (cells: readonly (string | number)[]): string => `| ${cells.join(' | ')} |\n`;
const table = (head: readonly string[], rows: readonly (readonly (string | number)[])[]): string => row(head) + row(head.map(() => '---')) + rows.map(row).join('');
const code = (text: string): string => `\`${text}\``;
const list = (texts: readonly string[]): string => texts.map(code).join(', ');

/** A format in a granularity: the recipes that compute it, or who says the scales. */
function cell(format: Format, granularity: Granularity): string {
  const policy = allowedPolicies().find((each) => each.format === format && each.granularity === granularity);
  if (policy === undefined) return 'refused';
  if (policy.scales === 'none') return 'stored as it is';
  return policy.scales === 'given' ? 'given' : list(policy.recipes);
}

function allowedTable(): string {
  const names = Object.keys(granularities) as Granularity[];
  const rows = names.map((granularity) => [code(granularity), code(granularities[granularity].shape), ...(Object.keys(formats) as Format[]).map((format) => cell(format, granularity))]);
  return table(['granularity', 'scales of a side', ...Object.keys(formats).map(code)], rows);
}

function presetTable(): string {
  const rows = Object.entries(presets as { readonly [name: string]: Preset }).map(([name, { dtype, granularity, recipe, layout, blockSize, source }]) => [
    code(name), code(dtype), code(granularity), recipe ? code(recipe) : '–', code(layout), blockSize ?? '–', source,
  ]);
  return table(['`preset`', '`dtype`', '`granularity`', '`recipe`', '`layout`', '`blockSize`', 'where it comes from'], rows);
}

/** The document with its printed tables. */
export function withTables(document: string): string {
  return Object.entries({ allowed: allowedTable(), presets: presetTable() }).reduce((text, [name, printed]) => {
    const marks = new RegExp(`(<!-- ${name} -->\n)[^]*(<!-- /${name} -->)`);
    if (!marks.test(text)) throw new Error(`the document expected the marks <!-- ${name} --> and <!-- /${name} -->`);
    return text.replace(marks, (_, open: string, close: string) => open + printed + close);
  }, document);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) writeFileSync(policiesFile, withTables(readFileSync(policiesFile, 'utf8')));

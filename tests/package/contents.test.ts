/** What is in the packed package, and what it asks for. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { equal, is, ok } from 'uvu/assert';
import { reachedFiles } from '../../scripts/reached.js';
import { suite } from '../suite.js';
import { entries, filesBelow, manifest, project, root, type Project } from './project.js';

const test = suite('package: what is in it');
let packed: Project;
test.before(async () => {
  packed = await project();
});

test('its files are those that somebody reaches, and what one reads', () => {
  const files = filesBelow(packed.installed);
  const read = ['CHANGELOG.md', 'LICENSE', 'README.md', ...files.filter((file) => file.startsWith('docs/'))];
  equal(files, [...reachedFiles(packed.installed), ...read].sort());
});

test('its code is of sources that are there', () => {
  for (const file of filesBelow(join(packed.installed, 'dist'))) ok(existsSync(join(root, 'src', file.replace(/(\.d\.ts|\.js)$/, '.ts'))), `dist/${file}: no such source`);
});

test('its documents are reached from README.md, and none of their links dangles in the repository', () => {
  const reached = new Set<string>();
  const follow = (document: string): void => {
    if (reached.has(document)) return;
    reached.add(document);
    const text = readFileSync(join(packed.installed, document), 'utf8');
    for (const [, target] of text.matchAll(/\]\((?!https?:|#)([^)#]+)[^)]*\)/g)) {
      const linked = join(document, '..', target);
      ok(existsSync(join(root, linked)), `${document} links to ${target}`);
      if (existsSync(join(packed.installed, linked)) && linked.endsWith('.md')) follow(linked);
    }
  };
  follow('README.md');
  equal(filesBelow(join(packed.installed, 'docs')).map((file) => `docs/${file}`).filter((file) => !reached.has(file)), []);
});

test('it brings two small dependencies, asks for peers that are optional, and runs nothing when installed', () => {
  equal(Object.keys(manifest.dependencies).sort(), ['@assemblyscript/loader', '@noble/hashes']);
  equal(readdirSync(join(packed.folder, 'node_modules')).filter((name) => !name.startsWith('.')).sort(), ['@assemblyscript', '@noble', 'fp8-kv']);
  ok('webgpu' in manifest.peerDependencies);
  for (const peer of Object.keys(manifest.peerDependencies)) is(manifest.peerDependenciesMeta[peer]?.optional, true, peer);
  for (const hook of ['preinstall', 'install', 'postinstall', 'prepare']) is(manifest.scripts[hook], undefined);
});

test('it has an entry for everybody, and package.json', () => {
  for (const entry of ['fp8-kv', 'fp8-kv/oracle', 'fp8-kv/transformers']) ok(entries.includes(entry), entry);
  is(manifest.exports['./package.json'], './package.json');
});

/** docs/numerics.md names the tests that show each promise: they are there, and each promise has one. */
import { existsSync, readFileSync } from 'node:fs';
import { equal, is, match, ok } from 'uvu/assert';
import { suite } from './suite.js';

const test = suite('docs/numerics.md');
const page = new URL('../docs/numerics.md', import.meta.url);
const text = readFileSync(page, 'utf8');
const links = [...text.matchAll(/\[([^\]]*)\]\(([^)]*)\)/g)].map(([, label, target]) => ({ label, target }));

test('every file it links to is there, under the name it gives', () => {
  for (const { label, target } of links.filter(({ target }) => !target.startsWith('https:'))) {
    ok(existsSync(new URL(target, page)), `${target} is not there`);
    if (label.startsWith('`')) is(`../${label.slice(1, -1)}`, target);
  }
});

test('every file it names is linked to', () => {
  const named = [...text.matchAll(/`(tests\/[\w/-]+\.(?:test|slow)\.ts)`/g)].map(([, file]) => file);
  const linked = links.filter(({ label }) => label.startsWith('`tests/')).map(({ label }) => label.slice(1, -1));
  ok(named.length > 0);
  equal(named, linked);
});

test('every test it quotes is in the file before it', () => {
  const quoted = [...text.matchAll(/\]\(([^)]*)\) “([^”]*)”/g)];
  ok(quoted.length > 40);
  for (const [, target, name] of quoted) ok(readFileSync(new URL(target, page), 'utf8').includes(name), `${target} has no test “${name}”`);
});

test('every promise has a test', () => {
  const promises = text.split('\n## ').filter((section) => section.includes('| promise | shown by |')).flatMap((section) => section.split('\n').filter((line) => line.startsWith('| ')));
  ok(promises.length > 20);
  for (const promise of promises) if (!promise.startsWith('| promise')) match(promise, /\.(test|slow)\.ts\)/);
});

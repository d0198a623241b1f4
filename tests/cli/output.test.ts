import { linkSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { equal, is } from 'uvu/assert';
import { writeWhole } from '../../src/cli/output.js';
import { suite } from '../suite.js';

const test = suite('cli/output');

test('a file is replaced by a whole one, and never written to', () => {
  const folder = mkdtempSync(join(tmpdir(), 'fp8-kv-output-'));
  const [file, same] = [join(folder, 'report.html'), join(folder, 'same')];
  writeFileSync(file, 'before');
  // A second name of the file that was there.
  linkSync(file, same);
  writeWhole(file, 'after');
  is(readFileSync(file, 'utf8'), 'after');
  is(readFileSync(same, 'utf8'), 'before');
  equal(readdirSync(folder).sort(), ['report.html', 'same']);
  rmSync(folder, { recursive: true });
});

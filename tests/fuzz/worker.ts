/** Gives a reader one file after the other, on a thread of its own, so that one that hangs can be ended from outside. */
import { parentPort, workerData } from 'node:worker_threads';
import { faultOf } from './judge.js';
import { mutate } from './mutate.js';
import type { Readers } from './reader.js';
import type { Finding, Task } from './run.js';

const { module, name, seed, seconds, at } = workerData as Task;
const { readers } = (await import(module)) as { readers: Readers };
const reader = readers[name];
const end = Date.now() + 1000 * seconds;

const finding: Finding = { files: 0, fault: undefined };
for (const { bytes } of reader.samples) {
  const fault = await faultOf(reader, bytes);
  if (fault !== undefined) finding.fault = `a valid file: ${fault}`;
}
while (finding.fault === undefined && Date.now() < end) {
  // What is on its way, for who watches.
  Atomics.store(at, 0, finding.files);
  const fault = await faultOf(reader, mutate(reader.samples, seed + finding.files));
  if (fault !== undefined) finding.fault = `file ${seed + finding.files}: ${fault}`;
  finding.files++;
}
parentPort!.postMessage(finding);

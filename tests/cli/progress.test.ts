import { equal, is, match, ok } from 'uvu/assert';
import { Interrupted, Progress, progressLine } from '../../src/cli/progress.js';
import { suite } from '../suite.js';

const test = suite('cli/progress');

function terminal(isTTY: boolean) {
  const written: string[] = [];
  return { isTTY, written, write: (text: string): boolean => written.push(text) > 0 };
}

test('a line says how much is done, and what is left at the pace so far', () => {
  is(progressLine({ done: 0, total: 10, seconds: 0 }, 'windows'), `${'░'.repeat(30)} 0 % | 0 of 10 windows`);
  is(progressLine({ done: 4, total: 12, seconds: 40 }, 'windows'), `${'█'.repeat(10)}${'░'.repeat(20)} 33 % | 4 of 12 windows | 1:20 left`);
  match(progressLine({ done: 1, total: 3, seconds: 3661 }, 'layers'), /33 % \| 1 of 3 layers \| 2:02:02 left$/);
  match(progressLine({ done: 3, total: 3, seconds: 1 }, 'layers'), /^█{30} 100 % \| 3 of 3 layers \| 0:00 left$/);
});

test('it is drawn on a terminal and taken away at the end, and elsewhere not at all', async () => {
  const [screen, pipe] = [terminal(true), terminal(false)];
  {
    using first = new Progress(2, 'windows', screen);
    using second = new Progress(2, 'windows', pipe);
    await second.step();
    // Not drawn more often than ten times a second.
    await first.step();
    await new Promise((resolve) => void setTimeout(resolve, 150));
    await first.step();
  }
  is(screen.written.length, 3);
  match(screen.written[0], /^\r.*0 of 2 windows/);
  match(screen.written[1], /^\r.*2 of 2 windows/);
  is(screen.written[2], '\r\x1b[K');
  equal(pipe.written, []);
});

test('Ctrl-C ends the next step, also where nothing else lets signals in; afterwards it means what it did before', async () => {
  const before = process.listenerCount('SIGINT');
  const thrown = await (async () => {
    using progress = new Progress(5, 'windows', terminal(false));
    is(process.listenerCount('SIGINT'), before + 1);
    await progress.step();
    process.kill(process.pid, 'SIGINT');
    // Signals come when the loop comes round.
    for (let i = 0; i < 100; i++) await progress.step();
  })().catch((error: unknown) => error);
  ok(thrown instanceof Interrupted);
  is(process.listenerCount('SIGINT'), before);
});

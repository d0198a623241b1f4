import { equal, is, match, ok } from 'uvu/assert';
import { Interrupted, Progress, progressLine } from '../../src/cli/progress.js';
import { fittingTable } from '../../src/cli/table.js';
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

test('no line is as wide as its terminal', () => {
  const facts = { done: 4, total: 12, seconds: 40 };
  is(progressLine(facts, 'windows', 80), progressLine(facts, 'windows'));
  is(progressLine(facts, 'windows', 45), `${'█'.repeat(3)}${'░'.repeat(6)} 33 % | 4 of 12 windows | 1:20 left`);
  for (let columns = 1; columns < 80; columns++) ok(progressLine(facts, 'windows', columns).length < columns);
  const screen = { ...terminal(true), columns: 10 };
  new Progress(2, 'windows', screen)[Symbol.dispose]();
  is(screen.written[0], '\r 0 % | 0 \x1b[K');
});

test('a table leaves out what a terminal is too narrow for, in an order, and says so', () => {
  const draw = (columns?: number): string[] => fittingTable(['name', 'a', 'b', 'c'], [['x', '1', '2', '3']], ['b', 'a'], columns).split('\n');
  equal(draw(), ['name  a  b  c', 'x     1  2  3']);
  equal(draw(13), draw());
  const said = 'Too wide for this terminal, and left out: b';
  equal(draw(12), ['name  a  c', 'x     1  3', `${said}.`]);
  equal(draw(1), ['name  c', 'x     3', `${said}, a.`]);
});

test('it is drawn on a terminal and taken away at the end, and elsewhere not at all', async () => {
  const [screen, pipe] = [terminal(true), terminal(false)];
  const began = performance.now();
  {
    using first = new Progress(51, 'windows', screen);
    using second = new Progress(51, 'windows', pipe);
    await second.step();
    for (let i = 0; i < 50; i++) await first.step();
    await new Promise((resolve) => void setTimeout(resolve, 150));
    await first.step();
  }
  match(screen.written[0], /^\r.*0 of 51 windows/);
  match(screen.written.at(-2)!, /^\r.*51 of 51 windows/);
  is(screen.written.at(-1), '\r\x1b[K');
  // Not more often than ten times a second, and then what takes it away.
  ok(screen.written.length <= 2 + (performance.now() - began) / 100);
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

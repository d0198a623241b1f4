/** Does a key cost the same in long caches as in short ones, and from where on is FP8 faster than our own f32 cache? */
import { attention, fill, openBackends, type Ours } from './attention.js';
import { figureOf, report, type Section } from './harness.js';
import { median, race } from './race.js';
import { llama3 } from './shapes.js';

const LENGTHS = [4096, 8192, 16384, 32768, 65536];
const ROUNDS = 6;
const WARM_UP_MS = 150;

async function measure({ backend, build, threads }: Ours): Promise<Section> {
  const caches = [];
  for (const dtype of ['e4m3fn', 'f32'] as const) caches.push({ dtype, cached: await fill(backend, llama3, dtype, LENGTHS.at(-1)!) });
  const runs = caches.flatMap(({ dtype, cached }) =>
    LENGTHS.map((keys) => ({ name: `${dtype}, ${keys} keys`, build, threads, dtype, keys, run: attention(cached, 1, keys) })),
  );
  const times = await race(runs.map(({ run }) => run), ROUNDS, WARM_UP_MS);
  for (const { cached } of caches) cached.pages.dispose();
  const raced = runs.map((one, i) => ({ ...one, times: times[i], perKey: (median(times[i]) / one.keys) * 1e6 }));
  const figures = raced.map((one) => {
    const mean = raced.filter(({ dtype }) => dtype === one.dtype).reduce((sum, { perKey }) => sum + perKey, 0) / LENGTHS.length;
    const f32 = raced.find(({ dtype, keys }) => dtype === 'f32' && keys === one.keys)!;
    return figureOf(one, one.times, () => ({ 'ns per key': one.perKey, 'from the mean, %': 100 * (one.perKey / mean - 1), '÷ f32': one.perKey / f32.perKey }));
  });
  return { title: `${llama3.name}, ${build}${threads > 1 ? `, ${threads} threads` : ''}`, figures };
}

const sections: Section[] = [];
for (const ours of openBackends()) sections.push(await measure(ours));
report('Decode: cost per key, by length', sections);

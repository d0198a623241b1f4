/** All cache formats on both builds, and the ceiling, in one race for each shape: what decode and prefill ask. */
import { attention, fill, formats, openBackends, type Cached } from './attention.js';
import { figureOf, type Contestant, type Section } from './harness.js';
import { options } from './options.js';
import { ceiling, compilePlain, plainBuilds } from './plain/module.js';
import { median, race, type Run } from './race.js';
import { flops, shapes, type NamedShape } from './shapes.js';

/** A few milliseconds of the ceiling. */
const CEILING_FLOPS = 2e8;
const WARM_UP_MS = 150;

/** `tokens` new tokens come to `past` others. */
export async function raceFormats(past: number, tokens: number, rounds: number): Promise<Section[]> {
  compilePlain();
  const backends = openBackends();
  const bare = plainBuilds().map((build) => ({ name: 'f32x4 multiply-add', build: build.name, threads: 1, run: ceiling(build, CEILING_FLOPS) }));

  async function section(shape: NamedShape): Promise<Section> {
    const ours: (Contestant & { readonly cached: Cached; readonly run: Run })[] = [];
    for (const { backend, build, threads } of backends) {
      for (const name of formats) {
        const cached = await fill(backend, shape, name, past + tokens);
        ours.push({ name, build, threads, cached, run: attention(cached, tokens, past + tokens) });
      }
    }
    const times = await race([...ours, ...bare].map(({ run }) => run), rounds, WARM_UP_MS);
    for (const { cached } of ours) cached.pages.dispose();
    const bareTimes = times.slice(ours.length);
    const best = CEILING_FLOPS / (Math.min(...bareTimes.map(median)) / 1000);
    const work = flops(shape, past, tokens);
    const figures = ours.map((one, i) => {
      const f32 = ours.findIndex(({ name, build, threads }) => name === 'f32' && build === one.build && threads === one.threads);
      return figureOf(one, times[i], (seconds) => ({
        'GFLOP/s': work / seconds / 1e9,
        'of ceiling, %': (100 * work) / seconds / (one.threads * best),
        '÷ f32': median(times[i]) / median(times[f32]),
      }));
    });
    const ceilings = bare.map((one, i) =>
      figureOf(one, bareTimes[i], (seconds) => ({ 'GFLOP/s': CEILING_FLOPS / seconds / 1e9, 'of ceiling, %': (100 * CEILING_FLOPS) / seconds / best })),
    );
    return { title: shape.name, figures: [...figures, ...ceilings] };
  }

  const sections: Section[] = [];
  for (const shape of shapes(options().all)) sections.push(await section(shape));
  return sections;
}

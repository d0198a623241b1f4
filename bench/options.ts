/** The command line that all benches share; run.ts hands it on to each. */
import { parseArgs } from 'node:util';

function refuse(reason: string): never {
  console.error(reason);
  process.exit(2);
}

function parse() {
  const { values, positionals } = parseArgs({
    options: {
      all: { type: 'boolean', default: false },
      threads: { type: 'string', default: '1' },
      small: { type: 'boolean', default: false },
      large: { type: 'boolean', default: false },
      features: { type: 'string' },
      markdown: { type: 'boolean', default: false },
      json: { type: 'string' },
    },
    allowPositionals: true,
  });
  const threads = values.threads.split(',').map(Number);
  if (!threads.every((count) => Number.isInteger(count) && count > 0)) throw new TypeError(`--threads expected numbers of threads, got ${values.threads}`);
  return { ...values, threads, features: values.features?.split(','), names: positionals };
}

/** Ends the process with exit code 2 where the bench is called in a way that it does not know. */
export function options(known?: readonly string[]): ReturnType<typeof parse> {
  try {
    const parsed = parse();
    const unknown = parsed.names.find((name) => known?.includes(name) === false);
    if (unknown !== undefined) refuse(`no bench "${unknown}": expected ${known!.join(', ')}`);
    return parsed;
  } catch (error) {
    return refuse((error as Error).message);
  }
}

#!/usr/bin/env node
/** `fp8-kv COMMAND …`: one file per command. */
import { append } from './append.js';
import { attend } from './attend.js';
import { calibrate } from './calibrate.js';
import { check } from './check.js';
import { decode } from './decode.js';
import { doctor } from './doctor.js';
import { encode } from './encode.js';
import { evaluate } from './evaluate.js';
import { gen } from './gen.js';
import { inspect } from './inspect.js';
import { Interrupted } from './progress.js';
import { tune } from './tune.js';
import { UsageError, type Command } from './command.js';
import { version } from './version.js';

const commands: { readonly [name: string]: Command } = { encode, decode, append, attend, evaluate, calibrate, check, gen, inspect, doctor, tune };

const overview = `fp8-kv: the 8-bit KV cache, on the command line

${Object.values(commands)
  .map(({ usage, summary }) => `  ${usage.split('\n')[0]}\n      ${summary}`)
  .join('\n')}

fp8-kv COMMAND --help says more, fp8-kv --version which release this is. Exit code 0: all is well; 1: a difference or an error; 2: wrong usage.`;

/** As shells say of a program that SIGINT ended. */
const INTERRUPTED = 130;

async function main([name, ...args]: readonly string[]): Promise<number> {
  if (name === undefined || name === '--help' || name === '-h' || name === 'help') {
    console.log(overview);
    return name === undefined ? 2 : 0;
  }
  if (name === '--version') {
    console.log(version);
    return 0;
  }
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (command === undefined) {
    console.error(`fp8-kv: no command "${name}": expected one of ${Object.keys(commands).join(', ')}`);
    return 2;
  }
  if (args.includes('--help') || args.includes('-h')) {
    console.log(`fp8-kv ${command.usage}\n\n${command.summary}\n\n${command.details}`);
    return 0;
  }
  try {
    return await command.run(args);
  } catch (error) {
    console.error(`fp8-kv ${name}: ${(error as Error).message}`);
    return error instanceof UsageError ? 2 : error instanceof Interrupted ? INTERRUPTED : 1;
  }
}

process.exitCode = await main(process.argv.slice(2));

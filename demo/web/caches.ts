/** The ways to store that the page offers. */
import { storagesOf, type Text } from '../../src/evaluate/evaluate.js';
import { isCalibrated, type Variant } from '../../src/evaluate/variants.js';
import { quantizedFormats } from '../../src/formats.js';
import { wasmBackend } from '../../src/index.js';
import type { Storage } from '../../src/model/cached-model.js';
import type { LlamaRunner } from '../../src/model/llama.js';
import type { Tokenizer } from '../../src/model/tokenizer.js';
import { variants as shown } from '../variants.js';

const GROUP_SIZE = 32;

/** Those of the demo in Node, f16, and scales of groups. */
export const variants: readonly Variant[] = [
  shown[0],
  { name: 'f16', dtype: 'f16', granularity: 'tensor', scales: 'none' },
  ...quantizedFormats.flatMap((dtype): Variant[] => [
    ...shown.filter((variant) => variant.dtype === dtype),
    { name: `${dtype}, group ${GROUP_SIZE}`, dtype, granularity: 'group', scales: 'computed', groupSize: GROUP_SIZE },
  ]),
];

/** Calibrations see so many tokens, at most. */
const CALIBRATION_TOKENS = 1024;
/** Of these so many go through the model at a time. */
const CALIBRATION_WINDOW = 256;

/** @throws RangeError for a name that no variant has */
function variantOf(name: string): Variant {
  const variant = variants.find((each) => each.name === name);
  if (variant === undefined) throw new RangeError(`"cache" expected one of ${variants.map((each) => each.name).join('; ')}; got ${name}`);
  return variant;
}

export interface StorageOptions {
  readonly runner: LlamaRunner;
  readonly tokenizer: Tokenizer;
  /** What scales are calibrated with. */
  readonly text: string;
  /** After each window of a calibration: of how many tokens. What it throws ends it. */
  readonly onCalibrated?: (tokens: number, of: number) => void | Promise<void>;
}

/** How caches of these names store. Those that need a calibration are calibrated on the CPU, whose scales are the same everywhere. */
export async function storages(names: readonly string[], { runner, tokenizer, text, onCalibrated }: StorageOptions): Promise<Storage[]> {
  const chosen = names.map(variantOf);
  let calibration: Text | undefined;
  if (chosen.some(isCalibrated)) {
    // No token is shorter than a character of its own, but for those of single bytes.
    const ids = tokenizer.encode(text.slice(0, 16 * CALIBRATION_TOKENS)).slice(1, 1 + CALIBRATION_TOKENS);
    calibration = { name: 'the calibration text', ids };
  }
  using backend = wasmBackend();
  const window = Math.min(CALIBRATION_WINDOW, runner.maxTokens);
  const total = calibration?.ids.length ?? 0;
  let windows = 0;
  return await storagesOf({ backend, runner, bos: tokenizer.bos, window, variants: chosen, calibration, onWindow: () => onCalibrated?.(Math.min(++windows * window, total), total) });
}

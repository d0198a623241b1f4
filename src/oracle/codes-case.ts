/**
 * `codes/1` case files: values, how they are to be encoded, and the codes that a kernel made of them. Tensors: `input` F32|F16|BF16
 * [..., dim]; `scales` F32 where they are given; `expected.codes` F8_E4M3|F8_E5M2|I8|U8, of the input's shape; `expected.scales` F32|F16
 * where they are computed, absent where nobody looks at them. Metadata: `fp8_kv_case`, `layout` NHD, `format`, `granularity` (absent:
 * values are encoded as they are), `group_size`, `recipe`, `scale_precision`, `saturate`.
 */
import { CaseReader, scaleValues } from '../files/case.js';
import { parseSafetensors } from '../files/safetensors.js';
import { uint8 } from '../files/tensor.js';
import { formats, resolveQuantizedFormat, type FormatName } from '../formats.js';
import type { Granularity } from '../layout.js';
import { granularities, isGiven } from '../policies.js';
import type { RecipeName, ScalePrecision } from '../recipe.js';
import { checkCodes, checkScalesShape, type CheckCodesCall, type CodesCheck } from './check-codes.js';

/** @throws FormatError when the file is not such a case */
function readCodesCase(bytes: Uint8Array, file: string): CheckCodesCall {
  const reader = new CaseReader(parseSafetensors(bytes, file), file, 'codes/1');
  const input = reader.tensor('input');
  const codes = reader.tensor('expected.codes');
  reader.expectShape('expected.codes', codes.shape, input.shape);
  const format = reader.typed('format', input, () => resolveQuantizedFormat(reader.text('format') as FormatName, 'format'));
  if (codes.dtype !== 'U8' && codes.dtype !== formats[format].safetensors) reader.fail(`metadata states ${format}, tensor "expected.codes" is ${codes.dtype}`);
  const granularity = reader.text('granularity') as Granularity | undefined;
  if (granularity !== undefined && !Object.hasOwn(granularities, granularity)) reader.fail(`metadata "granularity" expected one of ${Object.keys(granularities).join(', ')}, got ${granularity.slice(0, 80)}`);
  const groupSize = reader.text('group_size') === undefined ? undefined : reader.size('group_size', undefined);
  const name = granularity !== undefined && isGiven(granularity) ? 'scales' : 'expected.scales';
  const scales = reader.has(name) ? reader.tensor(name) : undefined;
  const { values, dtype } = reader.floats('input', input);
  const call: CheckCodesCall = {
    input: values, dtype, shape: input.shape, codes: reader.typed('expected.codes', codes, uint8), format, granularity, groupSize,
    scales: scales && reader.typed(name, scales, scaleValues),
    recipe: reader.text('recipe') as RecipeName | undefined,
    scalePrecision: reader.text('scale_precision') as ScalePrecision | undefined,
    saturate: reader.boolean('saturate', true),
  };
  if (scales) reader.typed(name, scales, () => checkScalesShape(scales.shape, call, name));
  return call;
}

/**
 * Checks a `codes/1` case file whose `expected.codes`, and `expected.scales`, are what a kernel made.
 * @param file what to call the file in errors
 * @throws FormatError when it is not such a case; TypeError or RangeError for what does not go together
 */
export function checkCodesCase(bytes: Uint8Array, file: string): CodesCheck {
  return checkCodes(readCodesCase(bytes, file));
}

import { parseNpy, serializeNpy } from '../files/npy.js';
import { parseSafetensors, serializeSafetensors } from '../files/safetensors.js';
import { float32, uint16, valueDtypes, type Tensor } from '../files/tensor.js';
import { formats, type Fp8Format } from '../formats.js';
import { encode as encodeValues } from '../wasm/codec.js';
import { fileKind, formatOption, JSON_OPTION, oneFile, parse, readBytes, UsageError, type Command } from './command.js';
import { checkWritable, writeWhole } from './output.js';

interface Settings {
  readonly format: Fp8Format;
  readonly saturate: boolean;
}

/** numpy has no bf16: its bits travel as <u2, or as <V2 from ml_dtypes. */
const bits: { readonly [from: string]: 'F16' | 'BF16' | undefined } = { f16: 'F16', bf16: 'BF16' };

function encodeTensor(tensor: Tensor, { format, saturate }: Settings): Tensor {
  const from = valueDtypes[tensor.dtype];
  const values = from === 'f32' ? float32(tensor) : uint16(tensor);
  return { dtype: formats[format].safetensors, shape: tensor.shape, data: encodeValues(values, format, { from, saturate }) };
}

function encodeSafetensors(bytes: Uint8Array, file: string, settings: Settings): { bytes: Uint8Array; values: number } {
  const { metadata, tensors } = parseSafetensors(bytes, file);
  let values = 0;
  let found = false;
  const encoded = new Map<string, Tensor>();
  for (const [name, tensor] of tensors) {
    const result = Object.hasOwn(valueDtypes, tensor.dtype) ? encodeTensor(tensor, settings) : tensor;
    if (result !== tensor) {
      found = true;
      values += result.data.length;
    }
    encoded.set(name, result);
  }
  if (!found) throw new Error(`${file}: expected F32, F16 or BF16 tensors, got none`);
  return { bytes: serializeSafetensors(encoded, metadata), values };
}

function encodeNpy(bytes: Uint8Array, file: string, from: string | undefined, settings: Settings): { bytes: Uint8Array; values: number } {
  const { descr, dtype, shape, data } = parseNpy(bytes, file);
  const stated = from === undefined ? dtype : descr === '<u2' ? bits[from] : undefined;
  if (stated === undefined || !Object.hasOwn(valueDtypes, stated)) {
    throw new Error(`${file} holds ${descr}${from ? `, with --from ${from}` : ''}: expected <f4, <f2, or <u2 with --from f16 or bf16`);
  }
  const result = encodeTensor({ dtype: stated, shape, data }, settings);
  return { bytes: serializeNpy('|u1', shape, result.data), values: result.data.length };
}

export const encode: Command = {
  usage: 'encode IN -o OUT [--format e4m3fn|e5m2]',
  summary: 'Encodes the floating-point values of a .npy or .safetensors file to FP8 codes, bit for bit as NVIDIA does.',
  details: `  -o FILE                where to write: the same kind of file as IN
  --format FORMAT        e4m3fn (default) or e5m2
  --no-saturate          too large becomes NaN (e4m3fn) or infinity (e5m2), not the largest finite code
  --from f16|bf16        what the bits of a <u2 .npy are
${JSON_OPTION}

.npy: <f4, <f2, <V2 (bfloat16 of ml_dtypes) or <u2 in, |u1 out. .safetensors: F32, F16 and BF16 tensors are encoded, others kept.`,
  async run(args) {
    const { values, positionals } = parse(args, {
      output: { type: 'string', short: 'o' },
      format: { type: 'string' },
      'no-saturate': { type: 'boolean' },
      from: { type: 'string' },
      json: { type: 'boolean' },
    });
    const { input, output } = oneFile(positionals, values.output);
    const settings = { format: formatOption(values.format), saturate: !values['no-saturate'] };
    const kind = fileKind(input, output);
    checkWritable(output);
    if (kind === 'safetensors' && values.from !== undefined) throw new UsageError('--from is for .npy files: a .safetensors file states its dtypes');
    const bytes = readBytes(input);
    const result = kind === 'npy' ? encodeNpy(bytes, input, values.from, settings) : encodeSafetensors(bytes, input, settings);
    writeWhole(output, result.bytes);
    console.log(values.json ? JSON.stringify({ output, format: settings.format, values: result.values }) : `${output}: ${result.values} ${settings.format} codes`);
    return 0;
  },
};

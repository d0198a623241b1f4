/** Devices that run a kernel in place of the one that they lack a feature for. */

import { wgsl } from '../../src/generated/wgsl.js';

/** The device, with every shader rewritten before it is compiled. */
export function withShaders(device: GPUDevice, rewrite: (code: string) => string): GPUDevice {
  return new Proxy(device, {
    get(target, name) {
      if (name === 'createShaderModule') return ({ code }: GPUShaderModuleDescriptor) => device.createShaderModule({ code: rewrite(code) });
      const value = Reflect.get(target, name, target) as unknown;
      return typeof value === 'function' ? (value.bind(target) as unknown) : value;
    },
  });
}

const rounding = `
fn roundedHalf(x: f32) -> f32 { return quantizeToF16(x); }
fn roundedQuad(x: vec4<f32>) -> vec4<f32> { return quantizeToF16(x); }
`;

/** f32 in place of f16. What is made f16 is rounded as that, what is computed in it is not. */
export function inF32(code: string): string {
  if (!code.includes('enable f16;')) return code;
  const converted = code.replace('enable f16;', '').replaceAll('bitcast<vec2<f16>>', 'unpack2x16float').replaceAll(/vec4<f16>\(([^(),]+)\)/g, 'roundedQuad($1)').replaceAll(/\bf16\(/g, 'roundedHalf(');
  return converted.replaceAll(/\bf16\b/g, 'f32') + rounding;
}

/**
 * Matrices as arrays of a subgroup's invocations, in place of wgsl/attend/matrix.wgsl: of a result, and of what is left, an
 * invocation has a part of one row; of what is right, the columns that it needs. Subgroups are those that the shape says.
 */
const matrices = `
const MATRIX_LANES: u32 = WORKGROUP / SUBGROUPS;
const MATRIX_PART: u32 = MATRIX_M * MATRIX_N / MATRIX_LANES;
alias LeftMatrix = array<f32, MATRIX_K>;
alias RightMatrix = array<f32, MATRIX_K * MATRIX_PART>;
alias ResultMatrix = array<f32, MATRIX_PART>;
var<private> matrixLane: u32;

fn matrixRow() -> u32 { return matrixLane * MATRIX_PART / MATRIX_N; }
fn matrixColumn() -> u32 { return matrixLane * MATRIX_PART % MATRIX_N; }

fn queriesAt(at: u32) -> LeftMatrix {
  var left = LeftMatrix();
  for (var k = 0u; k < MATRIX_K; k++) { left[k] = tile[at + matrixRow() * TILE_STRIDE + k]; }
  return left;
}
fn weightsAt(at: u32) -> LeftMatrix {
  var left = LeftMatrix();
  for (var k = 0u; k < MATRIX_K; k++) { left[k] = weights[at + matrixRow() * WEIGHT_STRIDE + k]; }
  return left;
}
fn keysAt(at: u32) -> RightMatrix {
  var right = RightMatrix();
  for (var i = 0u; i < MATRIX_K * MATRIX_PART; i++) { right[i] = tile[at + (matrixColumn() + i % MATRIX_PART) * TILE_STRIDE + i / MATRIX_PART]; }
  return right;
}
fn valuesAt(at: u32) -> RightMatrix {
  var right = RightMatrix();
  for (var i = 0u; i < MATRIX_K * MATRIX_PART; i++) { right[i] = tile[at + i / MATRIX_PART * TILE_STRIDE + matrixColumn() + i % MATRIX_PART]; }
  return right;
}
fn multiplied(left: LeftMatrix, right: RightMatrix, sums: ResultMatrix) -> ResultMatrix {
  var result = sums;
  for (var i = 0u; i < MATRIX_K * MATRIX_PART; i++) { result[i % MATRIX_PART] += left[i / MATRIX_PART] * right[i]; }
  return result;
}
fn storeResult(at: u32, result: ResultMatrix) {
  for (var i = 0u; i < MATRIX_PART; i++) { results[at + matrixRow() * RESULT_STRIDE + matrixColumn() + i] = result[i]; }
}
fn resultAt(at: u32) -> ResultMatrix {
  var result = ResultMatrix();
  for (var i = 0u; i < MATRIX_PART; i++) { result[i] = results[at + matrixRow() * RESULT_STRIDE + matrixColumn() + i]; }
  return result;
}
`;

/** A shader that multiplies matrices, without any. */
export function withoutMatrices(code: string): string {
  if (!code.includes(wgsl['attend/matrix'])) return inF32(code);
  const replaced = code
    .replace('enable f16, subgroups, chromium_experimental_subgroup_matrix;', 'enable f16;')
    .replace(wgsl['attend/matrix'], matrices)
    .replace(', @builtin(subgroup_id) subgroup: u32) {', ') {\n  let subgroup = lane / MATRIX_LANES;\n  matrixLane = lane % MATRIX_LANES;');
  return inF32(replaced).replaceAll('array<f16,', 'array<f32,');
}

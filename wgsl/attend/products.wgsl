// Products of a row of q and a key, in f32. Queries lie where weights and sums lie later.

alias KeyQuad = vec4<f32>;
const Q_UNIT: f32 = 1.0;

fn storeQuery(at: u32, quad: vec4<f32>) {
  memory[at] = bitcast<vec4<u32>>(quad);
}

fn productOf(at: u32, key: KeyQuad) -> f32 {
  return dot(bitcast<vec4<f32>>(memory[at]), key);
}

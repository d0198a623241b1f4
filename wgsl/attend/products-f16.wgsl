// Products of a row of q and a key, in f16, four at a time: sums of more are f32. Rows of q are between 1 and 2 where they are
// largest; divided by 16, four products with the largest e5m2 still are f16.

alias KeyQuad = vec4<f16>;
const Q_UNIT: f32 = 0.0625;

var<workgroup> queries: array<vec4<f16>, QUERY_QUADS>;

fn storeQuery(at: u32, quad: vec4<f32>) {
  queries[at] = vec4<f16>(quad * Q_UNIT);
}

fn productOf(at: u32, key: KeyQuad) -> f32 {
  return f32(dot(queries[at], key));
}

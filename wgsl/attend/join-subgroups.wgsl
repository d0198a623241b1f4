// As join-plain.wgsl, and to the same bits, where the LANES invocations that share a key lie in one subgroup: each hands half of
// its products to a neighbour and adds up the other half, until every one has sums of its own. None waits for the others.

// Products of an invocation: (key, row).
const PRODUCTS: u32 = KEYS_AHEAD * ROWS;

fn keepProducts(products: array<Rows, KEYS_AHEAD>, first: u32, ahead: u32, lane: u32) {
  var sums = array<f32, PRODUCTS>();
  for (var i = 0u; i < PRODUCTS; i++) { sums[i] = products[i / ROWS][i % ROWS]; }
  // Of which product the first sum is, and how many sums there are.
  var begin = 0u;
  var count = PRODUCTS;
  // Where there are fewer than invocations, one of those that have the same keeps it.
  var keeps = true;
  for (var step = 1u; step < LANES; step *= 2u) {
    let upper = (lane & step) != 0u;
    if (count == 1u) {
      sums[0] += subgroupShuffleXor(sums[0], step);
      keeps = keeps && !upper;
      continue;
    }
    count /= 2u;
    for (var i = 0u; i < PRODUCTS / 2u; i++) {
      if (i >= count) { break; }
      let given = select(sums[i + count], sums[i], upper);
      sums[i] = select(sums[i], sums[i + count], upper) + subgroupShuffleXor(given, step);
    }
    begin += select(0u, count, upper);
  }
  for (var i = 0u; i < PRODUCTS; i++) {
    if (i >= count || !keeps) { break; }
    let product = begin + i;
    scores[product % ROWS * CUT_KEYS + first + (ahead + product / ROWS) * GROUPS + lane / LANES] = bitcast<u32>(sums[i]);
  }
}

fn joinProducts(first: u32, lane: u32) {}

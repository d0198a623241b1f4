// What SUBGROUP invocations reduce by themselves: they lie in one subgroup on this device always. Sums are those of two
// neighbours, of four, and so on: to the same bits as through workgroup memory.

fn largestOfSubgroup(own: i32) -> i32 {
  var largest = own;
  for (var step = 1u; step < SUBGROUP; step *= 2u) { largest = max(largest, subgroupShuffleXor(largest, step)); }
  return largest;
}

fn sumOfSubgroup(own: f32) -> f32 {
  var sum = own;
  for (var step = 1u; step < SUBGROUP; step *= 2u) { sum += subgroupShuffleXor(sum, step); }
  return sum;
}

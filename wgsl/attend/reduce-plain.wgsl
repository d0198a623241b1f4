// Without subgroups, an invocation is one of its own.

const SUBGROUP: u32 = 1u;

fn largestOfSubgroup(own: i32) -> i32 {
  return own;
}

fn sumOfSubgroup(own: f32) -> f32 {
  return own;
}

// See panic.c.
import { Level, log, run } from "../assemblyscript/wasm_jobs";
export { alloc } from "../assemblyscript/wasm_jobs";

// The compiler inlines a function that is called once.
function pick(table: u64[], i: i32): u64 { return table[i]; }

function exec_(i: u64): u64 {
  log(Level.Info, "before");
  const table: u64[] = [1, 2, 3];
  return pick(table, i32(i)) + pick(table, i32(i) + 1);
}

export function exec(at: usize, size: usize): u64 { return run("exec", exec_, at, size); }

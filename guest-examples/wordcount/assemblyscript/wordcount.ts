// Counts the words of a chunk, like ../c/wordcount.c. Build: make -C sdk/assemblyscript
import { AnyString, Entry, fail, failed, Items, Raw, run } from "../../../sdk/assemblyscript/wasm_jobs";
export { alloc } from "../../../sdk/assemblyscript/wasm_jobs";

export function exec(at: usize, size: usize): u64 { return run("exec", count, at, size); }
export function aggregate(at: usize, size: usize): u64 { return run("aggregate", sum, at, size); }
export function merge(at: usize, size: usize): u64 { return run("merge", join, at, size); }

type Counts = Map<string, u64>;

function count(chunk: Raw): Counts {
  const text = chunk.tryField<AnyString>("text") || chunk.tryAs<AnyString>();
  if (!text) return fail<Counts>("no text");
  const counts: Counts = new Map();
  const bytes = text.bytes;
  for (let i = 0, start = 0; i <= bytes.length; i++) {
    const c: i32 = i < bytes.length ? bytes[i] : 0, lower = c | 32;
    if (lower >= 97 && lower <= 122) bytes[i] = u8(lower);
    else if (c < 48 || c > 57) {
      if (i > start) add(counts, String.UTF8.decodeUnsafe(bytes.dataStart + start, i - start), 1);
      start = i + 1;
    }
  }
  return counts;
}

function sum(outputs: Items<Entry<Counts>>): Counts {
  const total: Counts = new Map();
  while (outputs.next()) addAll(total, outputs.value.output);
  return total;
}

function join(partials: Items<Counts>): Counts {
  const total: Counts = new Map();
  while (partials.next()) addAll(total, partials.value);
  return total;
}

function addAll(total: Counts, counts: Counts): void {
  for (let i = 0, words = counts.keys(); i < words.length; i++) add(total, words[i], counts.get(words[i]));
}

function add(counts: Counts, word: string, n: u64): void {
  const before: u64 = counts.has(word) ? counts.get(word) : 0;
  if (before + n < before) fail<void>("overflow");
  counts.set(word, before + n);
}

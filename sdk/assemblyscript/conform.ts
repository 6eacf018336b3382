// A guest with all of the SDK, for the conformance tests: the key "do" of a chunk
// says which part to use, and any other chunk comes back in its preferred
// serialization (RFC 8949, section 4.1).
import { fail, Fields, heartbeat, log, Raw, run, Value } from "./wasm_jobs";
export { alloc } from "./wasm_jobs";

export function exec(at: usize, size: usize): u64 { return run("exec", act, at, size); }
export function aggregate(at: usize, size: usize): u64 { return run("aggregate", echo, at, size); }
export function merge(at: usize, size: usize): u64 { return run("merge", echo, at, size); }
export function setup(at: usize, size: usize): u64 { return run<Raw, void>("setup", prepare, at, size); }

class Fail {
  kind: u8 = 0;
  message: string = "";
  fields(f: Fields): void {
    this.kind = f.field("kind", this.kind);
    this.message = f.field("message", this.message);
  }
}

class Log {
  level: i32 = 0;
  message: string = "";
  fields(f: Fields): void {
    this.level = f.field("level", this.level);
    this.message = f.field("message", this.message);
  }
}

function act(chunk: Raw): Value {
  const what = chunk.tryField<string>("do");
  if (what == "fail") {
    failAs(chunk.as<Fail>());
  } else if (what == "log") {
    const line = chunk.as<Log>();
    if (line) log(line.level, line.message);
  } else if (what == "heartbeat") {
    return Value.bool(heartbeat());
  } else if (what == "trap") {
    unreachable();
  } else {
    return chunk.as<Value>();
  }
  return Value.null();
}

function failAs(asked: Fail): void {
  if (!asked) return;
  if (asked.kind > 2) return fail<void>("chunk.kind: unknown kind " + asked.kind.toString());
  fail<void>(asked.message, asked.kind);
}

function echo(input: Value): Value {
  return input;
}

function prepare(context: Raw): void {
  if (context.tryField<string>("do") == "fail") failAs(context.as<Fail>());
}

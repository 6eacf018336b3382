// Runs the tests in a .wasm file that was built from tests.ts, in Node.js.
import { readFileSync } from "node:fs";
import assert from "node:assert";

const module = new WebAssembly.Module(readFileSync(process.argv[2]));
const vectors = JSON.parse(readFileSync(new URL("../../testdata/abi/appendix_a.json", import.meta.url))).vectors;

function instantiate() {
  let memory;
  const text = (at) => at ? Buffer.from(memory.buffer, at, new DataView(memory.buffer).getUint32(at - 4, true)).toString("utf16le") : "";
  const { exports } = new WebAssembly.Instance(module, {
    env: { abort(message, file, line) { throw new Error(`${text(message)} (${text(file)}:${line})`); } },
    wasm_jobs: { fail() {}, log() {}, heartbeat: () => 1 },
  });
  memory = exports.memory;
  return exports;
}

// The result of preferred for an item; null = it is not an item.
function preferred(guest, bytes) {
  const at = guest.alloc(bytes.length);
  new Uint8Array(guest.memory.buffer, at).set(bytes);
  const result = BigInt.asUintN(64, guest.preferred(at, bytes.length));
  return result ? Buffer.from(guest.memory.buffer.slice(Number(result >> 32n), Number(result >> 32n) + Number(result & 0xffffffffn))) : null;
}

const tests = Object.keys(instantiate()).filter((name) => name.startsWith("test")).map((name) => [name, () => instantiate()[name]()]);

tests.push(["examples of RFC 8949", () => {
  const guest = instantiate();
  assert.equal(vectors.length, 81);
  for (const v of vectors) assert.equal(preferred(guest, Buffer.from(v.bytes, "hex")).toString("hex"), v.preferred, v.name);
}]);

// Reading any bytes ends, and a value that was read is written and read as the same.
tests.push(["malformed bytes", () => {
  let state = 1n;
  const random = (n) => {
    state = BigInt.asUintN(64, state * 6364136223846793005n + 1442695040888963407n);
    return Number(state >> 33n) % n;
  };
  const full = "a3626964617865697465 6d7382a3646e616d6561616473697a65036674656d702d63f93e00a0666c696d697473a1616220".replace(" ", "");
  for (const seed of [...vectors.map((v) => v.bytes), full]) {
    const guest = instantiate();
    const bytes = Buffer.from(seed, "hex");
    for (let n = 0; n < bytes.length; n++) assert.equal(preferred(guest, bytes.subarray(0, n)), null, `${n} bytes of ${seed}`);
    for (let i = 0; i < 1000; i++) {
      const changed = Buffer.from(bytes);
      for (let n = 1 + random(3); n > 0; n--) changed[random(bytes.length)] = random(256);
      const once = preferred(guest, changed);
      if (once) assert.deepEqual(preferred(guest, once), once, changed.toString("hex"));
    }
  }
  const guest = instantiate();
  for (const bad of "1c 1f 3f df ff f818 fc 5f01ff 5f5fffff 7f4161ff bf01ff 8201ff 0101 9bffffffffffffffff bb800000000000000001 5bffffffffffffffff 7affffffff00 9f 5f".split(" ")) {
    assert.equal(preferred(guest, Buffer.from(bad, "hex")), null, bad);
  }
}]);

let failed = 0;
for (const [name, run] of tests) {
  try {
    run();
    console.log("ok  ", name);
  } catch (e) {
    failed++;
    console.log("FAIL", name + ":", e.message);
  }
}
console.log(`${tests.length - failed} of ${tests.length} tests passed`);
process.exit(failed || tests.length < 10 ? 1 : 0);

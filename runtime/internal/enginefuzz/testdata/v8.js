// Runs modules that come on stdin, each after its length in 4 bytes. For each it
// writes 41 bytes: the kind of trap that ended it, the fuel used, and the SHA-256
// of its memory at the end.
const fs = require('fs'), crypto = require('crypto');

function read(n) {
  const b = Buffer.alloc(n);
  for (let at = 0; at < n;) {
    let got;
    try {
      got = fs.readSync(0, b, at, n - at, null);
    } catch (e) {
      if (e.code === 'EAGAIN') continue;
      if (e.code === 'EOF') process.exit(0);
      throw e;
    }
    if (got === 0) process.exit(0);
    at += got;
  }
  return b;
}

const traps = [
  ['unreachable', 1], ['divide by zero', 2], ['remainder by zero', 2], ['divide result unrepresentable', 3],
  ['float unrepresentable', 3], ['memory access out of bounds', 5],
  ['table index is out of bounds', 6], ['table access', 6], ['null function or function signature mismatch', 6],
];

for (;;) {
  const wasm = read(read(4).readUInt32LE(0));
  let granted = 0n;
  const meter = {
    yield: (fuel, stack) => { granted += (1n << 40n) - fuel; return 1n << 40n; },
  };
  const out = Buffer.alloc(41);
  const instance = new WebAssembly.Instance(new WebAssembly.Module(wasm), {wasm_jobs_meter: meter});
  try {
    instance.exports.run();
  } catch (e) {
    const known = traps.find(([text]) => e.message.includes(text));
    out[0] = known ? known[1] : 255;
    if (!known) process.stderr.write(e.message + '\n');
  }
  const fuel = instance.exports['wasm_jobs_meter.fuel'];
  if (fuel) out.writeBigInt64LE(granted - fuel.value, 1);
  crypto.createHash('sha256').update(new Uint8Array(instance.exports.memory.buffer)).digest().copy(out, 9);
  fs.writeSync(1, out);
}

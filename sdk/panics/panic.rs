// See panic.c.
#[path = "../rust/wasm_jobs.rs"]
mod wasm_jobs;

use wasm_jobs::Failure;

wasm_jobs::guest! { exec: exec }

#[inline(never)]
fn pick(table: &[u64], i: u64) -> u64 {
    table[i as usize]
}

fn exec(i: u64) -> Result<u64, Failure> {
    wasm_jobs::log(wasm_jobs::Level::Info, "before");
    Ok(pick(&[1, 2, 3], i))
}

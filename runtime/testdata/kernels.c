// kernels runs one of the kernels for measuring: the chunk [k, n] gives what
// kernel k returns for n rounds. Build: make -C runtime/testdata
#include "wasm_jobs.h"

#include "../rewrite/testdata/kernels.c"

static u64 (*const kernels[])(u32) = {empty, sha256, crc32, sieve, quicksort, fib, wordcount, indirect, matmul, nbody, mandelbrot, montecarlo};

WJ_EXPORT(exec) uint64_t exec(const uint8_t *chunk, size_t size) {
    wj_reader r = wj_read(chunk, size);
    wj_items items;
    uint64_t kernel, rounds;
    if (!wj_enter(&r, WJ_ARRAY, &items) || !wj_read_uint(&r, &kernel) || !wj_read_uint(&r, &rounds) || kernel >= sizeof kernels / sizeof *kernels)
        return wj_fail(WJ_PERMANENT, "not [kernel, rounds]");
    wj_writer w = {0};
    wj_write_uint(&w, kernels[kernel](rounds));
    return wj_written(&w);
}

// The same mistake in every language: an index outside of an array, in a function of
// the author's. A chunk is the index.
#include "../c/wasm_jobs.h"

static uint64_t table[3] = {1, 2, 3};

__attribute__((noinline)) static uint64_t pick(uint64_t i) {
    return table[i];
}

static void exec(wj_reader chunk, wj_writer *output) {
    uint64_t i;
    if (!wj_read_uint(&chunk, &i)) return;
    wj_log(WJ_INFO, "before");
    wj_write_uint(output, pick(i));
}

WJ_EXEC(exec)

// children emits as many children as its chunk says, each with its number as data, in the
// state "c". The item goes to the state "j".
// Build: make -C bench guests
#include "../../sdk/c/wasm_jobs.h"

static void emit(wj_reader chunk, wj_writer *move) {
    uint64_t n;
    if (!wj_read_uint(&chunk, &n)) __builtin_trap();
    wj_write_head(move, WJ_MAP, 2);
    wj_write_text(move, "next");
    wj_write_text(move, "j");
    wj_write_text(move, "emit");
    wj_write_head(move, WJ_ARRAY, n);
    for (uint64_t i = 0; i < n; i++) {
        wj_write_head(move, WJ_MAP, 2);
        wj_write_text(move, "next");
        wj_write_text(move, "c");
        wj_write_text(move, "data");
        wj_write_uint(move, i);
    }
}
WJ_EXEC(emit)

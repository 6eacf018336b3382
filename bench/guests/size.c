// size returns the size of its chunk, in bytes.
// Build: make -C bench guests
#include "../../sdk/c/wasm_jobs.h"

static void measure(wj_reader chunk, wj_writer *output) { wj_write_uint(output, (uint64_t)(chunk.end - chunk.at)); }
WJ_EXEC(measure)

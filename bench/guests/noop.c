// noop returns its chunk, an integer: its time is the cost of a call.
// Build: make -C bench guests
#include "adapter.h"

static uint64_t kernel(const uint8_t *chunk, size_t size) {
    wj_reader r = wj_read(chunk, size);
    uint64_t n;
    if (!wj_read_uint(&r, &n)) __builtin_trap();
    return wj_result(chunk, size);
}

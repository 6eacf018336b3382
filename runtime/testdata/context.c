// context keeps a context of any size. The chunk n reads a byte of each page of
// 4 KiB, writes one in n pages spread over it, and gives the sum of what was
// read. Build: make -C runtime/testdata
#include "wasm_jobs.h"

static uint8_t *context;
static size_t length;

WJ_EXPORT(setup) uint64_t setup(uint8_t *bytes, size_t size) {
    context = bytes;
    length = size;
    return 0; // ignored
}

WJ_EXPORT(exec) uint64_t exec(const uint8_t *chunk, size_t size) {
    wj_reader r = wj_read(chunk, size);
    uint64_t pages, sum = 0;
    if (!wj_read_uint(&r, &pages)) return wj_fail(WJ_PERMANENT, "not a number of pages");
    for (size_t at = 0; at < length; at += 4096) sum += context[at];
    for (uint64_t i = 0; i < pages; i++) context[length / pages * i]++;
    wj_writer w = {0};
    wj_write_uint(&w, sum);
    return wj_written(&w);
}

// square gives n * n for a chunk that is an integer n, or a map with n under
// the key "n"; the job's result is the sum. Build: make -C guest-examples c
#include "wasm_jobs.h"

static uint64_t number(uint64_t value) {
    wj_writer w = {0};
    wj_write_uint(&w, value);
    return wj_written(&w);
}

WJ_EXPORT(exec) uint64_t exec(const uint8_t *chunk, size_t size) {
    wj_reader r = wj_read(chunk, size), value;
    wj_head n;
    if (wj_find(r, "n", &value) == 1) r = value;
    if (!wj_read_head(&r, &n) || n.major > WJ_NEGINT) return wj_fail(WJ_PERMANENT, "not an integer");
    // A negative integer is -1 - arg.
    if (n.arg > UINT32_MAX - n.major) return wj_fail(WJ_PERMANENT, "overflow");
    uint64_t magnitude = n.arg + n.major;
    return number(magnitude * magnitude);
}

static uint64_t sum(wj_reader r, bool entries) {
    uint64_t total = 0, value;
    wj_items items, entry;
    wj_enter(&r, WJ_ARRAY, &items);
    while (wj_next(&r, &items)) {
        if (entries) wj_enter(&r, WJ_ARRAY, &entry), wj_skip(&r);
        if (!wj_read_uint(&r, &value)) return wj_fail(WJ_PERMANENT, "not an integer");
        if (__builtin_add_overflow(total, value, &total)) return wj_fail(WJ_PERMANENT, "overflow");
    }
    return number(total);
}

// aggregate gets [[id, output], ...].
WJ_EXPORT(aggregate) uint64_t aggregate(const uint8_t *outputs, size_t size) {
    return sum(wj_read(outputs, size), true);
}

// merge gets [sum, ...].
WJ_EXPORT(merge) uint64_t merge(const uint8_t *sums, size_t size) {
    return sum(wj_read(sums, size), false);
}

// square returns n * n for a chunk that is an integer n, or a map with n under
// the key "n". The job's result is the sum. Build: make -C guest-examples c
#include "wasm_jobs.h"

static void square(wj_reader chunk, wj_writer *output) {
    wj_reader value;
    wj_head n;
    if (wj_find(chunk, "n", &value) == 1) chunk = value;
    if (!wj_read_head(&chunk, &n) || n.major > WJ_NEGINT) {
        wj_fail(WJ_PERMANENT, "not an integer");
        return;
    }
    // A negative integer is -1 - arg.
    if (n.arg > UINT32_MAX - n.major) {
        wj_fail(WJ_PERMANENT, "overflow");
        return;
    }
    uint64_t magnitude = n.arg + n.major;
    wj_write_uint(output, magnitude * magnitude);
}

// sum adds up squares, or sums of them.
static void sum(wj_outputs *outputs, wj_writer *result) {
    uint64_t total = 0, value;
    for (wj_reader output; wj_next_output(outputs, &output);) {
        if (!wj_read_uint(&output, &value)) {
            wj_fail(WJ_PERMANENT, "not an integer");
            return;
        }
        if (__builtin_add_overflow(total, value, &total)) {
            wj_fail(WJ_PERMANENT, "overflow");
            return;
        }
    }
    wj_write_uint(result, total);
}

WJ_EXEC(square)
WJ_AGGREGATE(sum)
WJ_MERGE(sum)

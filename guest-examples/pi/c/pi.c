// pi estimates pi by the Monte Carlo method. A chunk is a number of samples, or
// a map with that number under the key "n". Its output is [inside, samples], and
// the job's result {"pi": 4 * inside / samples, "inside": sum, "samples": sum}.
//
// The host derives random bytes from the job's seed and the chunk: equal chunks
// get equal samples. Give each an id to make them differ: {"id": 7, "n": 1000}.
// Build: make -C guest-examples c
#include "wasm_jobs.h"

enum { BATCH = 512, HEARTBEAT = 2048 }; // samples per request, requests per heartbeat

// inside reports whether a point of a square lies within the quarter circle. With
// integers nothing is rounded; they have 31 bits so that the sum of squares fits.
static bool inside(uint64_t point) {
    uint64_t x = (uint32_t)point >> 1, y = point >> 33;
    return x * x + y * y < 1ull << 62;
}

static bool sample(uint64_t samples, uint64_t *hits) {
    static uint64_t points[BATCH];
    for (uint64_t batch = 1; samples; batch++) {
        uint64_t n = samples < BATCH ? samples : BATCH;
        if (wj_random(points, n * sizeof *points) != 0) return false;
        for (uint64_t i = 0; i < n; i++) *hits += inside(points[i]);
        samples -= n;
        if (batch % HEARTBEAT == 0 && !wj_heartbeat()) return false;
    }
    return true;
}

WJ_EXPORT(exec) uint64_t exec(const uint8_t *chunk, size_t size) {
    wj_reader r = wj_read(chunk, size), value;
    uint64_t samples, hits = 0;
    if (wj_find(r, "n", &value) == 1) r = value;
    if (!wj_read_uint(&r, &samples)) return wj_fail(WJ_PERMANENT, "not a number of samples");
    if (!sample(samples, &hits)) return wj_fail(WJ_RETRYABLE, "cancelled, or no random bytes");
    wj_writer w = {0};
    wj_write_head(&w, WJ_ARRAY, 2);
    wj_write_uint(&w, hits);
    wj_write_uint(&w, samples);
    return wj_written(&w);
}

static uint64_t estimate(uint64_t hits, uint64_t samples) {
    wj_writer w = {0};
    wj_write_head(&w, WJ_MAP, 3);
    wj_write_text(&w, "pi");
    if (samples)
        wj_write_double(&w, 4.0 * (double)hits / (double)samples);
    else
        wj_write_null(&w);
    wj_write_text(&w, "inside");
    wj_write_uint(&w, hits);
    wj_write_text(&w, "samples");
    wj_write_uint(&w, samples);
    return wj_written(&w);
}

// aggregate takes [[id, [inside, samples]], ...].
WJ_EXPORT(aggregate) uint64_t aggregate(const uint8_t *outputs, size_t size) {
    wj_reader r = wj_read(outputs, size);
    wj_items items, pair;
    uint64_t hits = 0, samples = 0, h, s;
    wj_enter(&r, WJ_ARRAY, &items);
    while (wj_next(&r, &items)) {
        if (!wj_enter(&r, WJ_ARRAY, &pair) || !wj_skip(&r) || !wj_enter(&r, WJ_ARRAY, &pair) ||
            !wj_read_uint(&r, &h) || !wj_read_uint(&r, &s))
            return wj_fail(WJ_PERMANENT, "not [inside, samples]");
        if (__builtin_add_overflow(hits, h, &hits) || __builtin_add_overflow(samples, s, &samples))
            return wj_fail(WJ_PERMANENT, "overflow");
    }
    return estimate(hits, samples);
}

// merge takes results of aggregate and of itself.
WJ_EXPORT(merge) uint64_t merge(const uint8_t *partials, size_t size) {
    wj_reader r = wj_read(partials, size), value;
    wj_items items;
    uint64_t hits = 0, samples = 0, h, s;
    wj_enter(&r, WJ_ARRAY, &items);
    for (; wj_next(&r, &items); wj_skip(&r)) {
        if (wj_find(r, "inside", &value) != 1 || !wj_read_uint(&value, &h) ||
            wj_find(r, "samples", &value) != 1 || !wj_read_uint(&value, &s))
            return wj_fail(WJ_PERMANENT, "not an estimate");
        if (__builtin_add_overflow(hits, h, &hits) || __builtin_add_overflow(samples, s, &samples))
            return wj_fail(WJ_PERMANENT, "overflow");
    }
    return estimate(hits, samples);
}

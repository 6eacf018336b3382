// wasm_jobs.h: what a guest in C or C++ needs for version 1 of the guest ABI
// (abi/ABI.md): exports, imports, an allocator, a reader and a writer of CBOR.
// Copy this file into your project; it needs no C library.
//
//	static void square(wj_reader chunk, wj_writer *output) {
//	    uint64_t n;
//	    if (wj_get_uint(chunk, "n", &n)) wj_write_uint(output, n * n);
//	}
//	WJ_EXEC(square)
//
//	clang --target=wasm32 -O2 -mbulk-memory -ffreestanding -nostdlib
//	    -Wl,--no-entry,--stack-first,--strip-debug -o square.wasm square.c
//
// Include it in one source file a guest, since it defines the export `alloc`; a
// guest that defines its own says WJ_OWN_ALLOC first. Where the target is not
// WebAssembly the same source is a program of the host, for tests: see wj_call.
//
// Nothing is ever freed. The host gives every call the memory that the guest
// had before its first one, so what a call allocates ends with that call.
#ifndef WASM_JOBS_H
#define WASM_JOBS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifndef __wasm__
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#endif

#ifdef __cplusplus
#define WJ_C extern "C"
extern "C" {
#else
#define WJ_C
#endif

#ifdef __wasm__
#define WJ_EXPORT(name) __attribute__((export_name(#name)))
#define WJ_IMPORT(module, name) __attribute__((import_module(module), import_name(name)))
#else
#define WJ_EXPORT(name)
#endif

// Exports. A guest says, outside of functions, what its functions are for:
//
//	WJ_EXEC(fn)       void fn(wj_reader chunk, wj_writer *output)
//	WJ_AGGREGATE(fn)  void fn(wj_outputs *outputs, wj_writer *result)
//	WJ_MERGE(fn)      void fn(wj_outputs *partials, wj_writer *result)
//	WJ_SETUP(fn)      void fn(wj_reader context)
//
// The first is needed. One function may serve for aggregate and merge, where
// outputs and results have one shape. A function writes one item, or fails.

#define WJ_EXEC(fn)                                                                  \
    WJ_C WJ_EXPORT(exec) uint64_t wj_export_exec(const uint8_t *bytes, size_t size) { \
        wj_writer output = {NULL, 0, 0};                                             \
        fn(wj_read(bytes, size), &output);                                           \
        return wj_written(&output);                                                  \
    }

#define WJ_AGGREGATE(fn) WJ_FOLD(aggregate, fn, true)
#define WJ_MERGE(fn) WJ_FOLD(merge, fn, false)

#define WJ_FOLD(name, fn, entries)                                                       \
    WJ_C WJ_EXPORT(name) uint64_t wj_export_##name(const uint8_t *bytes, size_t size) { \
        wj_writer result = {NULL, 0, 0};                                                 \
        wj_outputs outputs = wj_read_outputs(wj_read(bytes, size), entries);             \
        fn(&outputs, &result);                                                           \
        return wj_written(&result);                                                      \
    }

#define WJ_SETUP(fn)                                                                   \
    WJ_C WJ_EXPORT(setup) uint64_t wj_export_setup(const uint8_t *bytes, size_t size) { \
        fn(wj_read(bytes, size));                                                      \
        return 0;                                                                      \
    }

// Imports. A guest has those in its binary that it calls.

enum wj_kind { WJ_PERMANENT = 0, WJ_RETRYABLE = 1, WJ_REQUEUE = 2 };
enum wj_level { WJ_DEBUG = -4, WJ_INFO = 0, WJ_WARN = 4, WJ_ERROR = 8 };

#ifdef __wasm__

WJ_IMPORT("wasm_jobs", "fail") void wj_host_fail(uint32_t kind, const void *message, size_t size);
WJ_IMPORT("wasm_jobs", "log") void wj_host_log(int32_t level, const void *line, size_t size);
// 1 = go on; 0 = the attempt is being cancelled.
WJ_IMPORT("wasm_jobs", "heartbeat") uint32_t wj_heartbeat(void);
// WASI: fills size bytes, and returns 0 or an error number.
WJ_IMPORT("wasi_snapshot_preview1", "random_get") uint32_t wj_random(void *bytes, size_t size);

// wj_result packs what exec, aggregate, merge and setup return.
static inline uint64_t wj_result(const void *bytes, size_t size) {
    return (uint64_t)(uintptr_t)bytes << 32 | size;
}

#else

// Without a host, for tests: what the guest said in the current call.

typedef struct {
    bool failed;
    enum wj_kind kind;    // where it failed
    const char *message;  // where it failed; "" otherwise
    const uint8_t *output; // where it did not
    size_t size;
} wj_outcome;

static wj_outcome wj_current = {false, WJ_PERMANENT, "", NULL, 0};
static uint32_t wj_heartbeats = 1; // what wj_heartbeat returns
static uint64_t wj_random_state;

static inline void wj_host_fail(uint32_t kind, const void *message, size_t size) {
    if (wj_current.failed) return; // the first one counts
    char *text = (char *)malloc(size + 1);
    if (!text) abort();
    memcpy(text, message, size);
    text[size] = 0;
    wj_current.failed = true;
    wj_current.kind = (enum wj_kind)kind;
    wj_current.message = text;
}

static inline void wj_host_log(int32_t level, const void *line, size_t size) {
    fprintf(stderr, "log %d: %.*s\n", (int)level, (int)size, (const char *)line);
}

static inline uint32_t wj_heartbeat(void) {
    return wj_heartbeats;
}

// wj_random fills in the same bytes in every call of a function: splitmix64.
static inline uint32_t wj_random(void *bytes, size_t size) {
    for (size_t i = 0; i < size; i++) {
        uint64_t z = wj_random_state += 0x9e3779b97f4a7c15;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
        z = (z ^ z >> 27) * 0x94d049bb133111eb;
        ((uint8_t *)bytes)[i] = (uint8_t)(z >> 56);
    }
    return 0;
}

static inline uint64_t wj_result(const void *bytes, size_t size) {
    wj_current.output = (const uint8_t *)bytes;
    wj_current.size = size;
    return 0;
}

// wj_call calls an export on a copy of the input, as the host would, for tests:
// wj_call(wj_export_exec, "\x02", 1). The input is one CBOR item. Static
// variables stay as the call before has left them, where a host has fresh ones.
static inline wj_outcome wj_call(uint64_t (*function)(const uint8_t *, size_t), const void *bytes, size_t size) {
    uint8_t *input = (uint8_t *)malloc(size ? size : 1);
    if (!input) abort();
    memcpy(input, bytes, size);
    wj_outcome none = {false, WJ_PERMANENT, "", NULL, 0};
    wj_current = none;
    wj_random_state = 0;
    function(input, size);
    return wj_current;
}

#endif

static inline size_t wj_length(const char *text) {
    size_t n = 0;
    while (text[n]) n++;
    return n;
}

// wj_fail says that the current call failed; what it then returns is ignored.
// It returns 0, so that a guest can write: return wj_fail(WJ_PERMANENT, "why").
static inline uint64_t wj_fail(enum wj_kind kind, const char *message) {
    wj_host_fail((uint32_t)kind, message, wj_length(message));
    return 0;
}

static inline void wj_log(enum wj_level level, const char *line) {
    wj_host_log((int32_t)level, line, wj_length(line));
}

// Memory.

enum { WJ_PAGE = 65536, WJ_ALIGN = 16 };

#ifdef __wasm__

extern uint8_t __heap_base; // from the linker: the end of static data and stack
static uintptr_t wj_top;    // of what is allocated; 0 = nothing yet

// wj_alloc returns size zeroed bytes aligned to 16, or NULL where the host
// denies the memory.
static inline void *wj_alloc(size_t size) {
    uint64_t start = wj_top ? wj_top : (uintptr_t)&__heap_base;
    start = (start + WJ_ALIGN - 1) & ~(uint64_t)(WJ_ALIGN - 1);
    uint64_t end = start + size, have = (uint64_t)__builtin_wasm_memory_size(0) * WJ_PAGE;
    if (end > have) {
        uint64_t pages = (end - have + WJ_PAGE - 1) / WJ_PAGE;
        if (pages > 65536 || __builtin_wasm_memory_grow(0, (size_t)pages) == (size_t)-1) return NULL;
    }
    wj_top = (uintptr_t)end;
    return (void *)(uintptr_t)start;
}

#else

static inline void *wj_alloc(size_t size) {
    return calloc(size ? size : 1, 1);
}

#endif

// wj_must_alloc traps where there is no memory: after a denied growth the host
// calls that a failure of class memory.
static inline void *wj_must_alloc(size_t size) {
    void *p = wj_alloc(size);
    if (!p) __builtin_trap();
    return p;
}

#if defined(__wasm__) && !defined(WJ_OWN_ALLOC)
WJ_EXPORT(alloc) void *wj_export_alloc(size_t size) {
    return wj_alloc(size);
}
#endif

// wj_copy is memcpy. Most of what it copies is short, and a loop is then
// quicker than memory.copy, for which engines leave compiled code.
static inline void wj_copy(void *to, const void *from, size_t size) {
    if (size > 64) {
        __builtin_memcpy(to, from, size);
        return;
    }
    for (size_t i = 0; i < size; i++) ((uint8_t *)to)[i] = ((const uint8_t *)from)[i];
}

static inline bool wj_equal(const void *a, size_t a_size, const void *b, size_t b_size) {
    if (a_size != b_size) return false;
    for (size_t i = 0; i < a_size; i++)
        if (((const uint8_t *)a)[i] != ((const uint8_t *)b)[i]) return false;
    return true;
}

// wj_fail_at fails permanently with "key: what".
static inline void wj_fail_at(const char *key, const char *what) {
    size_t n = wj_length(key), m = wj_length(what);
    char *message = (char *)wj_must_alloc(n + 2 + m);
    wj_copy(message, key, n);
    wj_copy(message + n, ": ", 2);
    wj_copy(message + n + 2, what, m);
    wj_host_fail(WJ_PERMANENT, message, n + 2 + m);
}

// Reading CBOR (RFC 8949).
//
// The host passes well-formed items only. On bytes that are not, the reader
// gives wrong answers, but it never reads beyond the end.

enum wj_major { WJ_UINT, WJ_NEGINT, WJ_BYTES, WJ_TEXT, WJ_ARRAY, WJ_MAP, WJ_TAG, WJ_SIMPLE };
enum { WJ_FALSE = 20, WJ_TRUE = 21, WJ_NULL = 22, WJ_UNDEFINED = 23 };  // arguments of WJ_SIMPLE
enum { WJ_HALF = 25, WJ_SINGLE = 26, WJ_DOUBLE = 27, WJ_TO_BREAK = 31 }; // infos of heads
enum { WJ_BREAK = 0xff, WJ_MAX_DEPTH = 256 };

typedef struct {
    const uint8_t *at, *end;
} wj_reader;

typedef struct {
    enum wj_major major;
    bool indefinite; // a string, array or map that runs to a break
    uint64_t arg;    // value, length, count, tag or bits, by major
    uint8_t info;    // the last five bits of the first byte: which floats there are
} wj_head;

static inline wj_reader wj_read(const void *bytes, size_t size) {
    wj_reader r = {(const uint8_t *)bytes, (const uint8_t *)bytes + size};
    return r;
}

// wj_read_head reads the head of the next item; false = there is none.
static inline bool wj_read_head(wj_reader *r, wj_head *h) {
    if (r->at >= r->end) return false;
    uint8_t first = *r->at++, info = first & 31;
    h->major = (enum wj_major)(first >> 5);
    h->indefinite = info == WJ_TO_BREAK;
    h->arg = h->info = info;
    if (info < 24 || info == WJ_TO_BREAK) return true;
    size_t width = (size_t)1 << (info & 3);
    if (width > (size_t)(r->end - r->at)) return r->at = r->end, false;
    h->arg = 0;
    while (width--) h->arg = h->arg << 8 | *r->at++;
    return true;
}

// wj_is reports whether the next item is of the given major type.
static inline bool wj_is(const wj_reader *r, enum wj_major major) {
    return r->at < r->end && *r->at >> 5 == (int)major;
}

// wj_is_null reports whether the next item is null.
static inline bool wj_is_null(const wj_reader *r) {
    return r->at < r->end && *r->at == (WJ_SIMPLE << 5 | WJ_NULL);
}

static inline bool wj_advance(wj_reader *r, uint64_t size) {
    if (size > (uint64_t)(r->end - r->at)) return r->at = r->end, false;
    r->at += size;
    return true;
}

// wj_at_break passes a break, where one is next or nothing is left.
static inline bool wj_at_break(wj_reader *r) {
    if (r->at < r->end && *r->at != WJ_BREAK) return false;
    wj_advance(r, 1);
    return true;
}

// wj_skip skips one item, with all that is inside; false = there is none.
static inline bool wj_skip(wj_reader *r) {
    for (uint64_t items = 1; items; items--) {
        wj_head h;
        if (!wj_read_head(r, &h)) return false;
        if (h.indefinite) {
            while (r->at < r->end && *r->at != WJ_BREAK)
                if (!wj_skip(r)) return false;
            if (!wj_advance(r, 1)) return false;
            continue;
        }
        switch (h.major) {
        case WJ_BYTES:
        case WJ_TEXT:
            if (!wj_advance(r, h.arg)) return false;
            break;
        case WJ_ARRAY: items += h.arg; break;
        case WJ_MAP: items += 2 * h.arg; break;
        case WJ_TAG: items++; break;
        default: break;
        }
    }
    return true;
}

// wj_read_item reads the next item, whatever it is, as a reader of it alone.
static inline bool wj_read_item(wj_reader *r, wj_reader *item) {
    item->at = r->at;
    bool found = wj_skip(r);
    item->end = r->at;
    return found;
}

// The wj_read_… functions read a value of one type; false = the next item is of
// another one, or out of range. The reader is then anywhere: fail, or keep a
// copy of it from before.

static inline bool wj_read_uint(wj_reader *r, uint64_t *value) {
    wj_head h;
    if (!wj_is(r, WJ_UINT) || !wj_read_head(r, &h)) return false;
    *value = h.arg;
    return true;
}

static inline bool wj_read_int(wj_reader *r, int64_t *value) {
    wj_head h;
    if (!wj_read_head(r, &h) || h.major > WJ_NEGINT || h.arg > INT64_MAX) return false;
    *value = h.major == WJ_UINT ? (int64_t)h.arg : -1 - (int64_t)h.arg;
    return true;
}

static inline bool wj_read_bool(wj_reader *r, bool *value) {
    wj_head h;
    if (!wj_read_head(r, &h) || h.major != WJ_SIMPLE || (h.info != WJ_FALSE && h.info != WJ_TRUE)) return false;
    *value = h.info == WJ_TRUE;
    return true;
}

static inline bool wj_read_null(wj_reader *r) {
    return wj_is_null(r) && wj_advance(r, 1);
}

static inline bool wj_read_tag(wj_reader *r, uint64_t *tag) {
    wj_head h;
    if (!wj_is(r, WJ_TAG) || !wj_read_head(r, &h)) return false;
    *tag = h.arg;
    return true;
}

// Floats are moved as bits, so that no step of arithmetic can change a NaN.

// wj_widen returns the bits of a double for those of a float with the given
// numbers of bits for exponent and fraction.
static inline uint64_t wj_widen(uint64_t bits, unsigned exponent_bits, unsigned fraction_bits) {
    uint64_t sign = bits >> (exponent_bits + fraction_bits) << 63, most = (1u << exponent_bits) - 1;
    uint64_t exponent = bits >> fraction_bits & most, fraction = bits & (((uint64_t)1 << fraction_bits) - 1);
    uint64_t bias = 1023 - (most >> 1);
    if (exponent == most) return sign | (uint64_t)2047 << 52 | fraction << (52 - fraction_bits);
    if (exponent) return sign | (exponent + bias) << 52 | fraction << (52 - fraction_bits);
    if (!fraction) return sign;
    // Subnormal: its first bit becomes the one that doubles leave out.
    unsigned shift = (unsigned)__builtin_clzll(fraction) - (63 - fraction_bits);
    fraction = fraction << shift & (((uint64_t)1 << fraction_bits) - 1);
    return sign | (bias + 1 - shift) << 52 | fraction << (52 - fraction_bits);
}

// wj_narrow is the inverse of wj_widen; false = the value is none of the
// narrower type. NaNs are not for it.
static inline bool wj_narrow(uint64_t bits, unsigned exponent_bits, unsigned fraction_bits, uint64_t *narrow) {
    uint64_t most = (1u << exponent_bits) - 1, sign = bits >> 63 << (exponent_bits + fraction_bits);
    uint64_t fraction = bits & (((uint64_t)1 << 52) - 1);
    int64_t exponent = (int64_t)(bits >> 52 & 2047) - 1023 + (int64_t)(most >> 1);
    unsigned drop = 52 - fraction_bits;
    if (!(bits << 1)) return *narrow = sign, true;
    if ((bits >> 52 & 2047) == 2047) return *narrow = sign | most << fraction_bits, fraction == 0;
    if (exponent >= (int64_t)most) return false;
    if (exponent < 1) { // subnormal there
        if (exponent < 1 - (int64_t)fraction_bits) return false;
        fraction |= (uint64_t)1 << 52;
        drop += (unsigned)(1 - exponent);
        exponent = 0;
    }
    *narrow = sign | (uint64_t)exponent << fraction_bits | fraction >> drop;
    return (fraction & (((uint64_t)1 << drop) - 1)) == 0;
}

static inline uint64_t wj_float_bits(const wj_head *h) {
    return h->info == WJ_HALF ? wj_widen(h->arg, 5, 10) : h->info == WJ_SINGLE ? wj_widen(h->arg, 8, 23) : h->arg;
}

// wj_read_double reads a float of any width, or an integer that a double can
// hold exactly.
static inline bool wj_read_double(wj_reader *r, double *value) {
    wj_head h;
    if (!wj_read_head(r, &h)) return false;
    if (h.major <= WJ_NEGINT && h.arg < (uint64_t)1 << 53) {
        *value = h.major == WJ_UINT ? (double)h.arg : -1 - (double)h.arg;
        return true;
    }
    if (h.major != WJ_SIMPLE || h.info < WJ_HALF || h.info > WJ_DOUBLE) return false;
    uint64_t bits = wj_float_bits(&h);
    __builtin_memcpy(value, &bits, sizeof bits);
    return true;
}

typedef struct {
    const uint8_t *bytes;
    size_t size;
} wj_string;

// wj_read_string reads a string of the given major type, WJ_BYTES or WJ_TEXT;
// false = the next item is none. The bytes are those of the input, or a copy
// where the string stands there in parts. Text is not checked for UTF-8.
static inline bool wj_read_string(wj_reader *r, enum wj_major major, wj_string *s) {
    wj_head h;
    if (!wj_is(r, major) || !wj_read_head(r, &h)) return false;
    if (!h.indefinite) {
        s->bytes = r->at;
        s->size = (size_t)h.arg;
        return wj_advance(r, h.arg);
    }
    uint8_t *joined = (uint8_t *)wj_must_alloc((size_t)(r->end - r->at)); // as the parts are there, they fit
    s->bytes = joined;
    s->size = 0;
    while (r->at < r->end && *r->at != WJ_BREAK) {
        if (!wj_is(r, major) || !wj_read_head(r, &h)) return false;
        const uint8_t *part = r->at;
        if (!wj_advance(r, h.arg)) return false;
        wj_copy(joined + s->size, part, (size_t)h.arg);
        s->size += (size_t)h.arg;
    }
    return wj_advance(r, 1);
}

// wj_is_utf8 reports whether a string is UTF-8 (RFC 3629).
static inline bool wj_is_utf8(wj_string s) {
    for (const uint8_t *at = s.bytes, *end = at + s.size; at < end;) {
        uint8_t first = *at++;
        if (first < 0x80) continue;
        unsigned more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
        if (first < 0xc2 || first > 0xf4 || more > (size_t)(end - at)) return false;
        // What the first byte leaves open: no longer forms, no surrogates, no more than 0x10ffff.
        uint8_t low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
        uint8_t high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
        for (; more--; at++, low = 0x80, high = 0xbf)
            if (*at < low || *at > high) return false;
    }
    return true;
}

// An array or map that is being read: its elements follow, a map's by twos.
typedef struct {
    bool indefinite;
    uint64_t left; // elements or pairs, where their number is known
} wj_items;

// wj_enter goes into an array or map, by major; false = the next item is none.
static inline bool wj_enter(wj_reader *r, enum wj_major major, wj_items *items) {
    wj_head h;
    if (!wj_is(r, major) || !wj_read_head(r, &h)) return false;
    items->indefinite = h.indefinite;
    items->left = h.arg;
    return true;
}

// wj_next reports whether another element or pair follows, and leaves the array
// or map after the last one. The caller reads or skips each.
static inline bool wj_next(wj_reader *r, wj_items *items) {
    if (!items->indefinite) return items->left && items->left-- && r->at < r->end;
    return !wj_at_break(r);
}

// wj_find looks for a text key at the top level of the map that is the next
// item. It returns how often the key stands there, which in a valid map is 0 or
// 1, and sets value to a reader of the last one's value. What is no map has no
// keys.
static inline unsigned wj_find(wj_reader map, const char *key, wj_reader *value) {
    unsigned found = 0;
    wj_items pairs;
    if (!wj_enter(&map, WJ_MAP, &pairs)) return 0;
    while (wj_next(&map, &pairs)) {
        wj_string k = {NULL, 0};
        bool is_text = wj_is(&map, WJ_TEXT);
        if (is_text ? !wj_read_string(&map, WJ_TEXT, &k) : !wj_skip(&map)) return found;
        const uint8_t *start = map.at;
        wj_skip(&map);
        if (is_text && wj_equal(k.bytes, k.size, key, wj_length(key))) {
            value->at = start;
            value->end = map.at;
            found++;
        }
    }
    return found;
}

// The wj_get_… functions read the value of a text key of the map that is the
// next item. Where that cannot be, they fail the call, naming the key, and
// return false: the function should then return.

static inline bool wj_get(wj_reader map, const char *key, wj_reader *value) {
    if (!wj_is(&map, WJ_MAP)) return wj_fail_at(key, "missing, since this is no map"), false;
    unsigned found = wj_find(map, key, value);
    if (found != 1) wj_fail_at(key, found ? "there more than once" : "missing");
    return found == 1;
}

#define WJ_GETTER(name, type, read, what)                                          \
    static inline bool name(wj_reader map, const char *key, type *value) {         \
        wj_reader r;                                                               \
        if (!wj_get(map, key, &r)) return false;                                   \
        if (!(read)) return wj_fail_at(key, what), false;                            \
        return true;                                                               \
    }

WJ_GETTER(wj_get_uint, uint64_t, wj_read_uint(&r, value), "not an unsigned integer")
WJ_GETTER(wj_get_int, int64_t, wj_read_int(&r, value), "not an integer of 64 bits")
WJ_GETTER(wj_get_bool, bool, wj_read_bool(&r, value), "neither true nor false")
WJ_GETTER(wj_get_double, double, wj_read_double(&r, value), "not a number")
WJ_GETTER(wj_get_text, wj_string, wj_read_string(&r, WJ_TEXT, value) && wj_is_utf8(*value), "not a text in UTF-8")
WJ_GETTER(wj_get_bytes, wj_string, wj_read_string(&r, WJ_BYTES, value), "not a byte string")

#undef WJ_GETTER

// What aggregate is given, outputs with their ids, or merge, partial results.
typedef struct {
    wj_reader rest;
    wj_items items;
    bool entries; // [id, output], and not outputs alone
    wj_reader id; // of the output that was read last: an unsigned integer or a text
} wj_outputs;

static inline wj_outputs wj_read_outputs(wj_reader r, bool entries) {
    wj_outputs o = {r, {false, 0}, entries, {NULL, NULL}};
    wj_enter(&o.rest, WJ_ARRAY, &o.items);
    return o;
}

// wj_next_output reads the next output or partial result; false = that was all.
static inline bool wj_next_output(wj_outputs *o, wj_reader *output) {
    wj_items entry;
    if (!wj_next(&o->rest, &o->items)) return false;
    if (o->entries && !(wj_enter(&o->rest, WJ_ARRAY, &entry) && wj_read_item(&o->rest, &o->id))) return false;
    return wj_read_item(&o->rest, output);
}

// Writing CBOR, each head in its shortest form. Keys of maps are the caller's to
// sort: the deterministic order is bytewise, of the encoded keys.

typedef struct {
    uint8_t *bytes;
    size_t size, capacity;
} wj_writer;

// wj_reserve makes room for size more bytes, and returns where they go.
static inline uint8_t *wj_reserve(wj_writer *w, size_t size) {
    if (size > w->capacity - w->size) {
        uint64_t capacity = 2 * (uint64_t)w->capacity + size;
        if (capacity > UINT32_MAX) __builtin_trap();
        uint8_t *bytes = (uint8_t *)wj_must_alloc((size_t)capacity);
        wj_copy(bytes, w->bytes, w->size);
        w->bytes = bytes;
        w->capacity = (size_t)capacity;
    }
    return w->bytes + w->size;
}

static inline void wj_write_raw(wj_writer *w, const void *bytes, size_t size) {
    wj_copy(wj_reserve(w, size), bytes, size);
    w->size += size;
}

static inline unsigned wj_head_size(uint64_t arg) {
    return arg < 24 ? 1 : arg <= UINT8_MAX ? 2 : arg <= UINT16_MAX ? 3 : arg <= UINT32_MAX ? 5 : 9;
}

// wj_write_head writes the head of an item; those of arrays, maps and tags are
// followed by their contents, which the caller writes.
static inline void wj_write_head(wj_writer *w, enum wj_major major, uint64_t arg) {
    unsigned size = wj_head_size(arg), width = size - 1;
    uint8_t *to = wj_reserve(w, size);
    *to++ = (uint8_t)((unsigned)major << 5 | (width ? 24 + (unsigned)__builtin_ctz(width) : (unsigned)arg));
    while (width--) *to++ = (uint8_t)(arg >> 8 * width);
    w->size += size;
}

static inline void wj_write_uint(wj_writer *w, uint64_t value) {
    wj_write_head(w, WJ_UINT, value);
}

static inline void wj_write_int(wj_writer *w, int64_t value) {
    if (value < 0)
        wj_write_head(w, WJ_NEGINT, (uint64_t)-(value + 1));
    else
        wj_write_head(w, WJ_UINT, (uint64_t)value);
}

static inline void wj_write_string(wj_writer *w, enum wj_major major, const void *bytes, size_t size) {
    wj_write_head(w, major, size);
    wj_write_raw(w, bytes, size);
}

static inline void wj_write_text(wj_writer *w, const char *text) {
    wj_write_string(w, WJ_TEXT, text, wj_length(text));
}

static inline void wj_write_null(wj_writer *w) {
    wj_write_head(w, WJ_SIMPLE, WJ_NULL);
}

static inline void wj_write_bool(wj_writer *w, bool value) {
    wj_write_head(w, WJ_SIMPLE, value ? WJ_TRUE : WJ_FALSE);
}

// wj_write_bits writes a first byte, and the last width bytes of bits.
static inline void wj_write_bits(wj_writer *w, uint8_t info, uint64_t bits, unsigned width) {
    uint8_t *to = wj_reserve(w, 1 + width);
    w->size += 1 + width;
    *to++ = (uint8_t)(WJ_SIMPLE << 5 | info);
    while (width--) *to++ = (uint8_t)(bits >> 8 * width);
}

static inline void wj_write_float_bits(wj_writer *w, uint64_t bits) {
    uint64_t narrow;
    if (bits << 1 > (uint64_t)2047 << 53)
        wj_write_bits(w, WJ_HALF, 0x7e00, 2); // any NaN
    else if (wj_narrow(bits, 5, 10, &narrow))
        wj_write_bits(w, WJ_HALF, narrow, 2);
    else if (wj_narrow(bits, 8, 23, &narrow))
        wj_write_bits(w, WJ_SINGLE, narrow, 4);
    else
        wj_write_bits(w, WJ_DOUBLE, bits, 8);
}

// wj_write_float writes the shortest float that has this value.
static inline void wj_write_float(wj_writer *w, double value) {
    uint64_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    wj_write_float_bits(w, bits);
}

// wj_write_double writes eight bytes, also where fewer would do.
static inline void wj_write_double(wj_writer *w, double value) {
    uint64_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    wj_write_bits(w, WJ_DOUBLE, bits, 8);
}

// wj_written returns what was written to the host.
static inline uint64_t wj_written(const wj_writer *w) {
    return wj_result(w->bytes, w->size);
}

// Copying whatever comes, in preferred serialization (RFC 8949, section 4.1):
// with the shortest heads and floats, and definite lengths. Order and number of
// a map's pairs stay, and so do tags and simple values.

// What stands open while an item is walked through.
typedef struct {
    bool indefinite;
    uint64_t left; // elements to come, or the number of its length where that is indefinite
} wj_open;

// wj_walk goes through one item. Without an output it collects the lengths of
// all that is of indefinite length, in order; with one, it uses them.
static inline bool wj_walk(wj_reader *r, wj_writer *lengths, wj_writer *output) {
    wj_open *stack = (wj_open *)wj_must_alloc((WJ_MAX_DEPTH + 1) * sizeof *stack), root = {false, 1};
    size_t depth = 0, known = 0;
    stack[0] = root;
    for (;;) {
        wj_open *open = &stack[depth];
        if (open->indefinite ? wj_at_break(r) : !open->left) {
            if (!depth--) return true;
            continue;
        }
        if (!open->indefinite) open->left--;
        else if (!output) ((uint64_t *)(void *)lengths->bytes)[open->left]++;
        wj_head h;
        if (!wj_read_head(r, &h)) return false;
        bool string = h.major == WJ_BYTES || h.major == WJ_TEXT;
        uint64_t length = h.arg, number = known;
        if (h.indefinite) {
            if (!output) {
                length = 0;
                for (wj_reader parts = *r; string && !wj_at_break(&parts);) {
                    wj_head part;
                    if (!wj_read_head(&parts, &part) || !wj_advance(&parts, part.arg)) return false;
                    length += part.arg;
                }
                wj_write_raw(lengths, &length, sizeof length);
            } else {
                length = ((const uint64_t *)(const void *)lengths->bytes)[known];
                if (h.major == WJ_MAP) length /= 2;
            }
            known++;
        }
        if (output && h.major == WJ_SIMPLE && h.info >= WJ_HALF && h.info <= WJ_DOUBLE)
            wj_write_float_bits(output, wj_float_bits(&h));
        else if (output)
            wj_write_head(output, h.major, length);
        if (string && h.indefinite) {
            while (!wj_at_break(r)) {
                wj_head part;
                if (!wj_read_head(r, &part)) return false;
                const uint8_t *bytes = r->at;
                if (!wj_advance(r, part.arg)) return false;
                if (output) wj_write_raw(output, bytes, (size_t)part.arg);
            }
        } else if (string) {
            const uint8_t *bytes = r->at;
            if (!wj_advance(r, length)) return false;
            if (output) wj_write_raw(output, bytes, (size_t)length);
        } else if (h.major == WJ_ARRAY || h.major == WJ_MAP || h.major == WJ_TAG) {
            if (depth == WJ_MAX_DEPTH) return false;
            wj_open *inner = &stack[++depth];
            inner->indefinite = h.indefinite;
            inner->left = h.indefinite ? number : h.major == WJ_TAG ? 1 : h.major == WJ_MAP ? 2 * h.arg : h.arg;
        }
    }
}

// wj_write_item writes the next item in preferred serialization; false = it is
// not well-formed, and what was written of it is no item.
static inline bool wj_write_item(wj_writer *w, wj_reader *r) {
    wj_writer lengths = {NULL, 0, 0};
    wj_reader ahead = *r;
    return wj_walk(&ahead, &lengths, NULL) && wj_walk(r, &lengths, w);
}

#ifdef __cplusplus
}
#endif

#endif

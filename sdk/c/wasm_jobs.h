// wasm_jobs.h: the SDK for guests in C and C++, for version 1 of the guest ABI
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
// Include it in only one source file of a guest, because it defines the export
// `alloc`; to define your own, define WJ_OWN_ALLOC before. If the target is not
// WebAssembly the same source is a program of the host, for tests: see wj_call.
//
// Nothing is ever freed. In every call the guest has its memory as it was before
// its first call, so memory that a call allocates ends with the call.
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

// Exports. A guest declares its functions for the host, outside of functions:
//
//	WJ_EXEC(fn)       void fn(wj_reader chunk, wj_writer *output)
//	WJ_AGGREGATE(fn)  void fn(wj_outputs *outputs, wj_writer *result)
//	WJ_MERGE(fn)      void fn(wj_outputs *partials, wj_writer *result)
//	WJ_SETUP(fn)      void fn(wj_reader context)
//
// WJ_EXEC is required. One function can be both aggregate and merge, if outputs
// and results have the same shape. A function writes one item, or fails.

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

// Imports. A guest's binary imports only the ones that it calls.

enum wj_kind { WJ_PERMANENT = 0, WJ_RETRYABLE = 1, WJ_REQUEUE = 2 };
enum wj_level { WJ_DEBUG = -4, WJ_INFO = 0, WJ_WARN = 4, WJ_ERROR = 8 };

#ifdef __wasm__

WJ_IMPORT("wasm_jobs", "fail") void wj_host_fail(uint32_t kind, const void *message, size_t size);
WJ_IMPORT("wasm_jobs", "log") void wj_host_log(int32_t level, const void *line, size_t size);
// 1 = go on; 0 = the attempt is being cancelled.
WJ_IMPORT("wasm_jobs", "heartbeat") uint32_t wj_heartbeat(void);
// WASI: fills size bytes, and returns 0 or an error number.
WJ_IMPORT("wasi_snapshot_preview1", "random_get") uint32_t wj_random(void *bytes, size_t size);

// wj_result packs the result of exec, aggregate, merge and setup.
static inline uint64_t wj_result(const void *bytes, size_t size) {
    return (uint64_t)(uintptr_t)bytes << 32 | size;
}

#else

// Without a host, for tests: the result of the current call.

typedef struct {
    bool failed;
    enum wj_kind kind;    // if it failed
    const char *message;  // if it failed; "" otherwise
    const uint8_t *output; // if it did not fail
    size_t size;
} wj_outcome;

static wj_outcome wj_current = {false, WJ_PERMANENT, "", NULL, 0};
static uint32_t wj_heartbeats = 1; // the result of wj_heartbeat
static uint64_t wj_random_state;

static inline void wj_host_fail(uint32_t kind, const void *message, size_t size) {
    if (wj_current.failed) return; // the first failure counts
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

// wj_random returns the same bytes in every call of a function: splitmix64.
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

// wj_call calls an export on a copy of the input, like the host, for tests:
// wj_call(wj_export_exec, "\x02", 1). The input is one CBOR item. Static
// variables keep their values between calls; a host makes them fresh.
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

// wj_fail makes the current call fail; the result of the call is then ignored.
// It returns 0, so that a guest can write: return wj_fail(WJ_PERMANENT, "why").
static inline uint64_t wj_fail(enum wj_kind kind, const char *message) {
    wj_host_fail((uint32_t)kind, message, wj_length(message));
    return 0;
}

static inline void wj_log(enum wj_level level, const char *line) {
    wj_host_log((int32_t)level, line, wj_length(line));
}

// Panics. The host shows the message of a trap that comes right after it was logged.

// WJ_COLD keeps a function out of the code that calls it: it has its own frame in a
// stack trace, which the host leaves out.
#define WJ_COLD static __attribute__((noinline, cold, unused))

// wj_panic logs a message and traps.
WJ_COLD __attribute__((noreturn)) void wj_panic(const char *message) {
    wj_log(WJ_ERROR, message);
    __builtin_trap();
}

// wj_append appends a text to a message of at most size bytes, and returns its end.
static inline char *wj_append(char *end, const char *limit, const char *text) {
    while (*text && end < limit) *end++ = *text++;
    return end;
}

static inline char *wj_append_number(char *end, const char *limit, uint64_t n) {
    char digits[21];
    char *first = digits + sizeof digits - 1;
    *first = 0;
    do *--first = (char)('0' + n % 10);
    while (n /= 10);
    return wj_append(end, limit, first);
}

// wj_panic_at logs "panic: MESSAGE at FILE:LINE", and traps.
WJ_COLD __attribute__((noreturn)) void wj_panic_at(const char *message, const char *file, uint32_t line) {
    char text[512];
    char *limit = text + sizeof text - 1;
    char *end = wj_append(wj_append(text, limit, "panic: "), limit, message);
    end = wj_append(wj_append(wj_append(end, limit, " at "), limit, file), limit, ":");
    *wj_append_number(end, limit, line) = 0;
    wj_panic(text);
}

// wj_assert traps if a condition is false, with the condition, the file and the line
// in its message. It also works with NDEBUG.
#define wj_assert(condition) \
    ((condition) ? (void)0 : wj_panic_at("assertion failed: " #condition, __FILE__, __LINE__))

// Memory.

enum { WJ_PAGE = 65536, WJ_ALIGN = 16 };

#ifdef __wasm__

extern uint8_t __heap_base; // from the linker: the end of static data and stack
static uintptr_t wj_top;    // end of the allocated memory; 0 = nothing yet

// wj_alloc returns size zeroed bytes aligned to 16, or NULL if the host denies the
// memory.
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

// wj_must_alloc traps if there is no memory: after a denied growth the host
// reports a failure of class memory.
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

// wj_copy is memcpy. Most copies are short, and a loop is then faster than
// memory.copy, for which engines leave compiled code.
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

// Guests that clang compiles with -fsanitize=bounds (or undefined) and
// -fno-sanitize-recover=all call these functions when they find a mistake, such as an
// index outside of an array. Without them, it would read or overwrite other data.
#if defined(__wasm__) && !defined(WJ_OWN_SANITIZER)

typedef struct {
    const char *file;
    uint32_t line, column;
} wj_place;

typedef struct {
    uint16_t kind, info; // kind 0 is an integer; info is twice the logarithm of its bits, plus 1 if it has a sign
    char name[1]; // and more
} wj_type;

typedef struct {
    wj_place place;
    const wj_type *array, *index;
} wj_bounds;

WJ_COLD char *wj_append_index(char *end, const char *limit, const wj_type *type, uintptr_t value) {
    uint32_t bits = type->kind == 0 ? 1u << (type->info >> 1) : 0;
    if (bits == 0 || bits > 64) return wj_append(end, limit, "?");
    // A value that does not fit into a pointer is passed by its address.
    uint64_t n = bits > 32 ? *(const uint64_t *)value : value;
    bool negative = (type->info & 1) && (bits > 32 ? (int64_t)n < 0 : (int32_t)n < 0);
    if (!negative) return wj_append_number(end, limit, n);
    n = bits > 32 ? 0 - n : (uint32_t)(0 - (uint32_t)n);
    return wj_append_number(wj_append(end, limit, "-"), limit, n);
}

#define WJ_SANITIZER(name) WJ_C __attribute__((weak, noinline, noreturn)) void __ubsan_handle_##name##_abort

WJ_SANITIZER(out_of_bounds)(const wj_bounds *at, uintptr_t index) {
    char text[256];
    char *limit = text + sizeof text - 1;
    char *end = wj_append_index(wj_append(text, limit, "index "), limit, at->index, index);
    end = wj_append(wj_append(end, limit, " out of bounds for "), limit, at->array->name);
    for (char *c = text; c + 5 < end; c++) // a second name of the type follows the first
        if (wj_equal(c, 5, " (aka", 5)) end = c;
    *end = 0;
    wj_panic_at(text, at->place.file, at->place.line);
}

WJ_SANITIZER(divrem_overflow)(const wj_place *at) { wj_panic_at("division by zero or overflow", at->file, at->line); }
WJ_SANITIZER(shift_out_of_bounds)(const wj_place *at) { wj_panic_at("shift out of bounds", at->file, at->line); }
WJ_SANITIZER(add_overflow)(const wj_place *at) { wj_panic_at("overflow of an addition", at->file, at->line); }
WJ_SANITIZER(sub_overflow)(const wj_place *at) { wj_panic_at("overflow of a subtraction", at->file, at->line); }
WJ_SANITIZER(mul_overflow)(const wj_place *at) { wj_panic_at("overflow of a multiplication", at->file, at->line); }
WJ_SANITIZER(negate_overflow)(const wj_place *at) { wj_panic_at("overflow of a negation", at->file, at->line); }
WJ_SANITIZER(pointer_overflow)(const wj_place *at) { wj_panic_at("overflow of a pointer", at->file, at->line); }
WJ_SANITIZER(load_invalid_value)(const wj_place *at) { wj_panic_at("invalid value of a bool or enum", at->file, at->line); }
WJ_SANITIZER(vla_bound_not_positive)(const wj_place *at) { wj_panic_at("invalid length of an array", at->file, at->line); }
WJ_SANITIZER(float_cast_overflow)(const wj_place *at) { wj_panic_at("overflow of a conversion from floating point", at->file, at->line); }
WJ_SANITIZER(nonnull_arg)(const wj_place *at) { wj_panic_at("invalid null pointer", at->file, at->line); }
WJ_SANITIZER(type_mismatch_v1)(const wj_place *at) { wj_panic_at("invalid or misaligned pointer", at->file, at->line); }
WJ_C __attribute__((weak, noinline, noreturn)) void __ubsan_handle_builtin_unreachable(const wj_place *at) {
    wj_panic_at("unreachable code", at->file, at->line);
}
WJ_C __attribute__((weak, noinline, noreturn)) void __ubsan_handle_missing_return(const wj_place *at) {
    wj_panic_at("missing return", at->file, at->line);
}

#endif

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
// The host passes only well-formed items. If bytes are malformed, the reader
// gives wrong results, but it never reads past the end.

enum wj_major { WJ_UINT, WJ_NEGINT, WJ_BYTES, WJ_TEXT, WJ_ARRAY, WJ_MAP, WJ_TAG, WJ_SIMPLE };
enum { WJ_FALSE = 20, WJ_TRUE = 21, WJ_NULL = 22, WJ_UNDEFINED = 23 };  // arguments of WJ_SIMPLE
enum { WJ_HALF = 25, WJ_SINGLE = 26, WJ_DOUBLE = 27, WJ_TO_BREAK = 31 }; // infos of heads
enum { WJ_BREAK = 0xff, WJ_MAX_DEPTH = 256 };

typedef struct {
    const uint8_t *at, *end;
} wj_reader;

typedef struct {
    enum wj_major major;
    bool indefinite; // a string, array or map that ends with a break
    uint64_t arg;    // value, length, count, tag or bits, by major
    uint8_t info;    // the last five bits of the first byte: the kind of float
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

// wj_at_break skips a break; true if there was one, or if nothing is left.
static inline bool wj_at_break(wj_reader *r) {
    if (r->at < r->end && *r->at != WJ_BREAK) return false;
    wj_advance(r, 1);
    return true;
}

// wj_skip skips one item, with everything inside; false = there is none.
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

// wj_read_item reads the next item, of any type, as a reader of only that item.
static inline bool wj_read_item(wj_reader *r, wj_reader *item) {
    item->at = r->at;
    bool found = wj_skip(r);
    item->end = r->at;
    return found;
}

// The wj_read_… functions read a value of one type; false = the next item has
// another type, or is out of range. The position of the reader is then
// undefined: fail, or use a copy from before.

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

// Floats are moved as bits, so that no arithmetic can change a NaN.

// wj_widen returns the bits of a double for the bits of a float with the given
// numbers of bits for exponent and fraction.
static inline uint64_t wj_widen(uint64_t bits, unsigned exponent_bits, unsigned fraction_bits) {
    uint64_t sign = bits >> (exponent_bits + fraction_bits) << 63, most = (1u << exponent_bits) - 1;
    uint64_t exponent = bits >> fraction_bits & most, fraction = bits & (((uint64_t)1 << fraction_bits) - 1);
    uint64_t bias = 1023 - (most >> 1);
    if (exponent == most) return sign | (uint64_t)2047 << 52 | fraction << (52 - fraction_bits);
    if (exponent) return sign | (exponent + bias) << 52 | fraction << (52 - fraction_bits);
    if (!fraction) return sign;
    // Subnormal: its first bit becomes the implicit bit of a double.
    unsigned shift = (unsigned)__builtin_clzll(fraction) - (63 - fraction_bits);
    fraction = fraction << shift & (((uint64_t)1 << fraction_bits) - 1);
    return sign | (bias + 1 - shift) << 52 | fraction << (52 - fraction_bits);
}

// wj_narrow is the inverse of wj_widen; false = the narrower type does not have
// the value. It does not handle NaNs.
static inline bool wj_narrow(uint64_t bits, unsigned exponent_bits, unsigned fraction_bits, uint64_t *narrow) {
    uint64_t most = (1u << exponent_bits) - 1, sign = bits >> 63 << (exponent_bits + fraction_bits);
    uint64_t fraction = bits & (((uint64_t)1 << 52) - 1);
    int64_t exponent = (int64_t)(bits >> 52 & 2047) - 1023 + (int64_t)(most >> 1);
    unsigned drop = 52 - fraction_bits;
    if (!(bits << 1)) return *narrow = sign, true;
    if ((bits >> 52 & 2047) == 2047) return *narrow = sign | most << fraction_bits, fraction == 0;
    if (exponent >= (int64_t)most) return false;
    if (exponent < 1) { // subnormal in the narrower type
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
// false = the next item is not one. The bytes are in the input, or a copy if the
// string has several parts. Text is not checked for UTF-8.
static inline bool wj_read_string(wj_reader *r, enum wj_major major, wj_string *s) {
    wj_head h;
    if (!wj_is(r, major) || !wj_read_head(r, &h)) return false;
    if (!h.indefinite) {
        s->bytes = r->at;
        s->size = (size_t)h.arg;
        return wj_advance(r, h.arg);
    }
    uint8_t *joined = (uint8_t *)wj_must_alloc((size_t)(r->end - r->at)); // the parts fit, as they are in the input
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
        // Checks beyond the first byte: no longer forms, no surrogates, at most 0x10ffff.
        uint8_t low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
        uint8_t high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
        for (; more--; at++, low = 0x80, high = 0xbf)
            if (*at < low || *at > high) return false;
    }
    return true;
}

// An array or map that is being read: its elements or pairs follow.
typedef struct {
    bool indefinite;
    uint64_t left; // elements or pairs, if their number is known
} wj_items;

// wj_enter enters an array or map, by major; false = the next item is not one.
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
// item. It returns the number of times that the map has the key, which is 0 or 1
// in a valid map, and sets value to a reader of the last value. An item that is
// not a map has no keys.
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
// next item. If that is not possible, they make the call fail with the name of
// the key, and return false: the function should then return.

static inline bool wj_get(wj_reader map, const char *key, wj_reader *value) {
    if (!wj_is(&map, WJ_MAP)) return wj_fail_at(key, "missing: the item is not a map"), false;
    unsigned found = wj_find(map, key, value);
    if (found != 1) wj_fail_at(key, found ? "duplicate key" : "missing");
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

// The input of aggregate, outputs with their ids, or of merge, partial results.
typedef struct {
    wj_reader rest;
    wj_items items;
    bool entries; // elements are [id, output], not only outputs
    wj_reader id; // of the last output: an unsigned integer or a text
} wj_outputs;

static inline wj_outputs wj_read_outputs(wj_reader r, bool entries) {
    wj_outputs o = {r, {false, 0}, entries, {NULL, NULL}};
    wj_enter(&o.rest, WJ_ARRAY, &o.items);
    return o;
}

// wj_next_output reads the next output or partial result; false = none is left.
static inline bool wj_next_output(wj_outputs *o, wj_reader *output) {
    wj_items entry;
    if (!wj_next(&o->rest, &o->items)) return false;
    if (o->entries && !(wj_enter(&o->rest, WJ_ARRAY, &entry) && wj_read_item(&o->rest, &o->id))) return false;
    return wj_read_item(&o->rest, output);
}

// Writing CBOR, each head in its shortest form. The caller must sort the keys of
// maps: the deterministic order is bytewise, by the encoded keys.

typedef struct {
    uint8_t *bytes;
    size_t size, capacity;
} wj_writer;

// wj_reserve makes room for size more bytes, and returns their address.
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

// wj_write_head writes the head of an item. For arrays, maps and tags the caller
// then writes the content.
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

// wj_write_double writes eight bytes, even if fewer would do.
static inline void wj_write_double(wj_writer *w, double value) {
    uint64_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    wj_write_bits(w, WJ_DOUBLE, bits, 8);
}

// wj_written returns the written bytes to the host.
static inline uint64_t wj_written(const wj_writer *w) {
    return wj_result(w->bytes, w->size);
}

// Copying any item, in preferred serialization (RFC 8949, section 4.1): with the
// shortest heads and floats, and definite lengths. The order and number of a map's
// pairs do not change, nor do tags and simple values.

// An open array, map, tag or string while an item is copied.
typedef struct {
    bool indefinite;
    uint64_t left; // elements to come, or the index of its length if that is indefinite
} wj_open;

// wj_walk walks through one item. Without an output it collects the lengths of all
// parts of indefinite length, in order; with an output, it uses them.
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
// malformed, and the written bytes are not an item.
static inline bool wj_write_item(wj_writer *w, wj_reader *r) {
    wj_writer lengths = {NULL, 0, 0};
    wj_reader ahead = *r;
    return wj_walk(&ahead, &lengths, NULL) && wj_walk(r, &lengths, w);
}

#ifdef __cplusplus
}
#endif

#endif

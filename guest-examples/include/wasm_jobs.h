// wasm_jobs.h: what a guest in C needs for version 1 of the guest ABI
// (abi/ABI.md): the imports, an allocator, a reader and a writer of CBOR.
//
// It needs no C library: compile with clang for wasm32 with -ffreestanding
// -nostdlib, as guest-examples/Makefile does. Include it in one source file a
// guest, since it defines the export `alloc`; a guest that defines its own says
// WJ_OWN_ALLOC first.
//
// Nothing is ever freed. The host gives every call the memory that the guest
// had before its first one, so what a call allocates ends with that call.
#ifndef WASM_JOBS_H
#define WASM_JOBS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WJ_EXPORT(name) __attribute__((export_name(#name)))
#define WJ_IMPORT(module, name) __attribute__((import_module(module), import_name(name)))

// Imports. A guest has those in its binary that it calls.

enum wj_kind { WJ_PERMANENT = 0, WJ_RETRYABLE = 1, WJ_REQUEUE = 2 };
enum wj_level { WJ_DEBUG = -4, WJ_INFO = 0, WJ_WARN = 4, WJ_ERROR = 8 };

WJ_IMPORT("wasm_jobs", "fail") void wj_host_fail(uint32_t kind, const void *message, size_t size);
WJ_IMPORT("wasm_jobs", "log") void wj_host_log(int32_t level, const void *line, size_t size);
// 1 = go on; 0 = the attempt is being cancelled.
WJ_IMPORT("wasm_jobs", "heartbeat") uint32_t wj_heartbeat(void);
// WASI: fills size bytes, and returns 0 or an error number.
WJ_IMPORT("wasi_snapshot_preview1", "random_get") uint32_t wj_random(void *bytes, size_t size);

static inline size_t wj_length(const char *text) {
    size_t n = 0;
    while (text[n]) n++;
    return n;
}

// wj_fail says that the current call failed; what it then returns is ignored.
// It returns 0, so that a guest can write: return wj_fail(WJ_PERMANENT, "why").
static inline uint64_t wj_fail(enum wj_kind kind, const char *message) {
    wj_host_fail(kind, message, wj_length(message));
    return 0;
}

static inline void wj_log(enum wj_level level, const char *line) {
    wj_host_log(level, line, wj_length(line));
}

// wj_result packs what exec, aggregate, merge and setup return.
static inline uint64_t wj_result(const void *bytes, size_t size) {
    return (uint64_t)(uintptr_t)bytes << 32 | size;
}

// Memory.

enum { WJ_PAGE = 65536, WJ_ALIGN = 16 };

extern uint8_t __heap_base; // from the linker: the end of static data and stack
static uintptr_t wj_top;    // of what is allocated; 0 = nothing yet

// wj_alloc returns size zeroed bytes aligned to 16, or NULL where the host
// denies the memory.
static void *wj_alloc(size_t size) {
    uint64_t start = wj_top ? wj_top : (uintptr_t)&__heap_base;
    start = (start + WJ_ALIGN - 1) & ~(uint64_t)(WJ_ALIGN - 1);
    uint64_t end = start + size, have = (uint64_t)__builtin_wasm_memory_size(0) * WJ_PAGE;
    if (end > have) {
        uint64_t pages = (end - have + WJ_PAGE - 1) / WJ_PAGE;
        if (pages > 65536 || __builtin_wasm_memory_grow(0, pages) == (size_t)-1) return NULL;
    }
    wj_top = end;
    return (void *)(uintptr_t)start;
}

// wj_must_alloc traps where there is no memory: after a denied growth the host
// calls that a failure of class memory.
static void *wj_must_alloc(size_t size) {
    void *p = wj_alloc(size);
    if (!p) __builtin_trap();
    return p;
}

#ifndef WJ_OWN_ALLOC
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

// Reading CBOR (RFC 8949).
//
// The host passes well-formed items only. On bytes that are not, the reader
// gives wrong answers, but it never reads beyond the end.

enum wj_major { WJ_UINT, WJ_NEGINT, WJ_BYTES, WJ_TEXT, WJ_ARRAY, WJ_MAP, WJ_TAG, WJ_SIMPLE };
enum { WJ_FALSE = 20, WJ_TRUE = 21, WJ_NULL = 22 }; // arguments of WJ_SIMPLE
enum { WJ_BREAK = 0xff };

typedef struct {
    const uint8_t *at, *end;
} wj_reader;

typedef struct {
    enum wj_major major;
    bool indefinite; // a string, array or map that runs to a break
    uint64_t arg;    // value, length, count, tag or bits, by major
} wj_head;

static inline wj_reader wj_read(const void *bytes, size_t size) {
    return (wj_reader){bytes, (const uint8_t *)bytes + size};
}

// wj_read_head reads the head of the next item; false = there is none.
static bool wj_read_head(wj_reader *r, wj_head *h) {
    if (r->at >= r->end) return false;
    uint8_t first = *r->at++, info = first & 31;
    *h = (wj_head){first >> 5, info == 31, info};
    if (info < 24 || info == 31) return true;
    size_t width = (size_t)1 << (info & 3);
    if (width > (size_t)(r->end - r->at)) return r->at = r->end, false;
    h->arg = 0;
    while (width--) h->arg = h->arg << 8 | *r->at++;
    return true;
}

// wj_is reports whether the next item is of the given major type.
static inline bool wj_is(const wj_reader *r, enum wj_major major) {
    return r->at < r->end && *r->at >> 5 == major;
}

static bool wj_advance(wj_reader *r, uint64_t size) {
    if (size > (uint64_t)(r->end - r->at)) return r->at = r->end, false;
    r->at += size;
    return true;
}

// wj_skip skips one item, with all that is inside; false = there is none.
static bool wj_skip(wj_reader *r) {
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

// wj_read_uint reads an unsigned integer; false = the next item is none.
static bool wj_read_uint(wj_reader *r, uint64_t *value) {
    wj_head h;
    if (!wj_is(r, WJ_UINT) || !wj_read_head(r, &h)) return false;
    *value = h.arg;
    return true;
}

typedef struct {
    const uint8_t *bytes;
    size_t size;
} wj_string;

// wj_read_string reads a string of the given major type, WJ_BYTES or WJ_TEXT;
// false = the next item is none. The bytes are those of the input, or a copy
// where the string stands there in parts. Text is not checked for UTF-8.
static bool wj_read_string(wj_reader *r, enum wj_major major, wj_string *s) {
    wj_head h;
    if (!wj_is(r, major) || !wj_read_head(r, &h)) return false;
    if (!h.indefinite) {
        *s = (wj_string){r->at, h.arg};
        return wj_advance(r, h.arg);
    }
    uint8_t *joined = wj_must_alloc(r->end - r->at); // as the parts are there, they fit
    *s = (wj_string){joined, 0};
    while (r->at < r->end && *r->at != WJ_BREAK) {
        if (!wj_is(r, major) || !wj_read_head(r, &h)) return false;
        const uint8_t *part = r->at;
        if (!wj_advance(r, h.arg)) return false;
        wj_copy(joined + s->size, part, h.arg);
        s->size += h.arg;
    }
    return wj_advance(r, 1);
}

// An array or map that is being read: its elements follow, a map's by twos.
typedef struct {
    bool indefinite;
    uint64_t left; // elements or pairs, where their number is known
} wj_items;

// wj_enter goes into an array or map, by major; false = the next item is none.
static bool wj_enter(wj_reader *r, enum wj_major major, wj_items *items) {
    wj_head h;
    if (!wj_is(r, major) || !wj_read_head(r, &h)) return false;
    *items = (wj_items){h.indefinite, h.arg};
    return true;
}

// wj_next reports whether another element or pair follows, and leaves the array
// or map after the last one. The caller reads or skips each.
static bool wj_next(wj_reader *r, wj_items *items) {
    if (!items->indefinite) return items->left && items->left-- && r->at < r->end;
    if (r->at < r->end && *r->at != WJ_BREAK) return true;
    wj_advance(r, 1);
    return false;
}

// wj_find looks for a text key at the top level of the map that is the next
// item. It returns how often the key stands there, which in a valid map is 0 or
// 1, and sets value to a reader of the last one's value. What is no map has no
// keys.
static unsigned wj_find(wj_reader map, const char *key, wj_reader *value) {
    unsigned found = 0;
    wj_items pairs;
    if (!wj_enter(&map, WJ_MAP, &pairs)) return 0;
    while (wj_next(&map, &pairs)) {
        wj_string k;
        bool is_text = wj_is(&map, WJ_TEXT);
        if (is_text ? !wj_read_string(&map, WJ_TEXT, &k) : !wj_skip(&map)) return found;
        const uint8_t *start = map.at;
        wj_skip(&map);
        if (is_text && wj_equal(k.bytes, k.size, key, wj_length(key))) {
            *value = (wj_reader){start, map.at};
            found++;
        }
    }
    return found;
}

// Writing CBOR, each head in its shortest form. Keys of maps are the caller's to
// sort: the deterministic order is bytewise, of the encoded keys.

typedef struct {
    uint8_t *bytes;
    size_t size, capacity;
} wj_writer;

// wj_reserve makes room for size more bytes, and returns where they go.
static uint8_t *wj_reserve(wj_writer *w, size_t size) {
    if (size > w->capacity - w->size) {
        uint64_t capacity = 2 * (uint64_t)w->capacity + size;
        if (capacity > UINT32_MAX) __builtin_trap();
        uint8_t *bytes = wj_must_alloc(capacity);
        wj_copy(bytes, w->bytes, w->size);
        w->bytes = bytes;
        w->capacity = capacity;
    }
    return w->bytes + w->size;
}

static void wj_write_raw(wj_writer *w, const void *bytes, size_t size) {
    wj_copy(wj_reserve(w, size), bytes, size);
    w->size += size;
}

static inline unsigned wj_head_size(uint64_t arg) {
    return arg < 24 ? 1 : arg <= UINT8_MAX ? 2 : arg <= UINT16_MAX ? 3 : arg <= UINT32_MAX ? 5 : 9;
}

static void wj_write_head(wj_writer *w, enum wj_major major, uint64_t arg) {
    unsigned size = wj_head_size(arg), width = size - 1;
    uint8_t *to = wj_reserve(w, size);
    *to++ = major << 5 | (width ? 24 + __builtin_ctz(width) : arg);
    while (width--) *to++ = arg >> 8 * width;
    w->size += size;
}

static inline void wj_write_uint(wj_writer *w, uint64_t value) {
    wj_write_head(w, WJ_UINT, value);
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

// wj_write_double writes eight bytes, also where fewer would do.
static inline void wj_write_double(wj_writer *w, double value) {
    uint8_t *to = wj_reserve(w, 9);
    uint64_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    *to++ = WJ_SIMPLE << 5 | 27;
    for (int i = 56; i >= 0; i -= 8) *to++ = bits >> i;
    w->size += 9;
}

static inline uint64_t wj_written(const wj_writer *w) {
    return wj_result(w->bytes, w->size);
}

#endif

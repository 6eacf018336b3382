// faulty is a guest that misbehaves on request, for tests of hosts.
// Build: make -C guest-examples c
//
// A chunk that is an unsigned integer n traps if n % 7 == 3, and is its own
// output otherwise. A map with a text under the key "do" is one of the requests
// below. Any other chunk is its own output.
//
//   {"do": "ok"}         returns "value", or null without it
//   {"do": "work"}       counts to "n" (0), and returns n: takes time, and ends
//   {"do": "trap"}       runs the instruction unreachable
//   {"do": "oob"}        loads from an address outside its memory
//   {"do": "div0"}       divides an integer by zero
//   {"do": "stack"}      calls itself without end, using only the engine's stack
//   {"do": "permanent"}  fails with kind 0 and "message" ("told to fail")
//   {"do": "retryable"}  the same with kind 1
//   {"do": "requeue"}    the same with kind 2
//   {"do": "loop"}       loops without end
//   {"do": "calls"}      makes 2^31 - 1 calls without any loop
//   {"do": "badptr"}     returns 16 bytes at an address outside memory
//   {"do": "wrap"}       returns 32 bytes whose end is above 2^32
//   {"do": "malformed"}  returns 82 01 1c, which more bytes cannot make well-formed
//   {"do": "truncated"}  returns 82 01, the start of an item
//   {"do": "trailing"}   returns 01 02, two items
//   {"do": "empty"}      returns no bytes
//   {"do": "big"}        returns a byte string of "size" (0) zeros
//   {"do": "grow"}       grows its memory until that is denied, then traps
//   {"do": "grown"}      the same, then returns null
//   {"do": "exit"}       calls proc_exit with "code" (0)
//   {"do": "counter"}    counts its calls in memory: 1 on fresh state
//   {"do": "dirty"}      overwrites all static data and new memory, returns null
//   {"do": "log"}        logs "lines" (1) lines "line 1", ... at "level" (0), returns null
//   {"do": "heartbeat"}  heartbeats until told to stop, at most "times" (2^64-1)
//                        times; returns how often it was told to go on
//   {"do": "clock"}      returns [wall clock, monotonic clock], in nanoseconds
//   {"do": "random"}     returns "size" (16) random bytes
//   {"do": "print"}      writes "text" ("printed\n") to descriptor "fd" (1), returns null
//
// Another request, or a number in the wrong form, fails permanently with
// "unknown request" or "not a number". `alloc` does not see the chunk: it
// returns 0 for ALLOC_DENIED bytes, so that a chunk of this length cannot be
// passed.
//
// The aggregate is the number of outputs; it traps if one of them is the text
// "bad-aggregate", which is the output of the chunk "bad-aggregate".
#define WJ_OWN_ALLOC
#include "wasm_jobs.h"

enum { ALLOC_DENIED = 65521 };

#define WASI(name) WJ_IMPORT("wasi_snapshot_preview1", name)

WASI("proc_exit") _Noreturn void proc_exit(uint32_t code);
WASI("clock_time_get") uint32_t clock_time_get(uint32_t clock, uint64_t precision, uint64_t *time);
WASI("fd_write") uint32_t fd_write(uint32_t fd, const wj_string *parts, uint32_t count, uint32_t *written);

extern uint8_t __global_base; // from the linker: the start of static data

// volatile keeps the compiler from optimizing these away.
static volatile uint32_t counter, zero;

WJ_EXPORT(alloc) void *alloc(size_t size) {
    return size == ALLOC_DENIED ? NULL : wj_alloc(size);
}

// A request is a chunk; its arguments are the values of its keys.

static uint64_t number(wj_reader request, const char *key, uint64_t otherwise) {
    wj_reader value;
    if (!wj_find(request, key, &value)) return otherwise;
    if (!wj_read_uint(&value, &otherwise)) wj_fail(WJ_PERMANENT, "not a number");
    return otherwise;
}

static wj_string text(wj_reader request, const char *key, const char *otherwise) {
    wj_reader value;
    wj_string s = {(const uint8_t *)otherwise, wj_length(otherwise)};
    if (wj_find(request, key, &value)) wj_read_string(&value, WJ_TEXT, &s);
    return s;
}

static bool is(wj_string s, const char *name) {
    return wj_equal(s.bytes, s.size, name, wj_length(name));
}

// Outputs.

static uint64_t null(void) {
    wj_writer w = {0};
    wj_write_null(&w);
    return wj_written(&w);
}

static uint64_t integer(uint64_t n) {
    wj_writer w = {0};
    wj_write_uint(&w, n);
    return wj_written(&w);
}

static uint64_t byte_string(const void *bytes, size_t size) {
    wj_writer w = {0};
    wj_write_string(&w, WJ_BYTES, bytes, size);
    return wj_written(&w);
}

// Failures that compilers would like to avoid.

__attribute__((noinline)) static uint32_t recurse(uint32_t depth) {
    counter = depth;
    if (zero) return 0;
    return recurse(depth + 1) + counter; // not a tail call
}

__attribute__((noinline)) static void call_tree(uint32_t depth) {
    if (depth) {
        call_tree(depth - 1);
        call_tree(depth - 1);
    }
    counter++;
}

static void grow_until_denied(void) {
    for (size_t pages = 4096; pages; pages /= 2)
        while (__builtin_wasm_memory_grow(0, pages) != (size_t)-1) continue;
}

// dirty changes every static byte, including the texts of this program: a later
// call that sees any of it goes wrong.
static uint64_t dirty(void) {
    enum { SIZE = 4 * WJ_PAGE };
    uint8_t *grown = wj_must_alloc(SIZE);
    uint64_t result = null();
    for (uint8_t *p = grown; p < grown + SIZE; p++) *p = 0xaa;
    for (volatile uint8_t *p = &__global_base; p < &__heap_base; p++) *p = 0xaa;
    return result;
}

static uint64_t fail(wj_reader request, enum wj_kind kind) {
    wj_string message = text(request, "message", "told to fail");
    wj_host_fail(kind, message.bytes, message.size);
    return 0;
}

static uint64_t log_lines(wj_reader request) {
    uint64_t lines = number(request, "lines", 1);
    wj_reader value;
    wj_head h = {0};
    if (wj_find(request, "level", &value)) wj_read_head(&value, &h);
    int32_t level = h.major == WJ_NEGINT ? -1 - (int32_t)h.arg : (int32_t)h.arg;
    for (uint64_t line = 1; line <= lines; line++) {
        char buffer[32] = "line ", digits[20];
        size_t size = wj_length(buffer), n = 0;
        for (uint64_t rest = line; rest; rest /= 10) digits[n++] = '0' + rest % 10;
        while (n) buffer[size++] = digits[--n];
        wj_host_log(level, buffer, size);
    }
    return null();
}

static uint64_t heartbeats(uint64_t times) {
    uint64_t beats = 0;
    while (beats < times && wj_heartbeat()) beats++;
    return integer(beats);
}

static uint64_t clocks(void) {
    wj_writer w = {0};
    wj_write_head(&w, WJ_ARRAY, 2);
    for (uint32_t clock = 0; clock < 2; clock++) {
        uint64_t time = 0;
        if (clock_time_get(clock, 1, &time) != 0) return wj_fail(WJ_PERMANENT, "clock_time_get failed");
        wj_write_uint(&w, time);
    }
    return wj_written(&w);
}

static uint64_t random_bytes(size_t size) {
    void *bytes = wj_must_alloc(size);
    if (wj_random(bytes, size) != 0) return wj_fail(WJ_PERMANENT, "random_get failed");
    return byte_string(bytes, size);
}

static uint64_t print(wj_reader request) {
    wj_string s = text(request, "text", "printed\n");
    uint32_t written;
    if (fd_write(number(request, "fd", 1), &s, 1, &written) != 0) return wj_fail(WJ_PERMANENT, "fd_write failed");
    return null();
}

static uint64_t ok(wj_reader request) {
    wj_reader value;
    if (!wj_find(request, "value", &value)) return null();
    return wj_result(value.at, value.end - value.at);
}

static uint64_t obey(wj_reader r, wj_string what) {
    if (is(what, "ok")) return ok(r);
    if (is(what, "work")) {
        uint64_t n = number(r, "n", 0);
        for (uint64_t i = 0; i < n; i++) counter = i;
        return integer(n);
    }
    if (is(what, "trap")) __builtin_trap();
    if (is(what, "oob")) return integer(*(volatile uint8_t *)(uintptr_t)0xffffffff);
    if (is(what, "div0")) return integer(counter / zero);
    if (is(what, "stack")) return integer(recurse(0));
    if (is(what, "permanent")) return fail(r, WJ_PERMANENT);
    if (is(what, "retryable")) return fail(r, WJ_RETRYABLE);
    if (is(what, "requeue")) return fail(r, WJ_REQUEUE);
    if (is(what, "loop"))
        for (;;) counter++;
    if (is(what, "calls")) return call_tree(30), integer(counter);
    if (is(what, "badptr")) return wj_result((void *)0xffff0000, 16);
    if (is(what, "wrap")) return wj_result((void *)0xfffffff0, 32);
    if (is(what, "malformed")) return wj_result("\x82\x01\x1c", 3);
    if (is(what, "truncated")) return wj_result("\x82\x01", 2);
    if (is(what, "trailing")) return wj_result("\x01\x02", 2);
    if (is(what, "empty")) return wj_result("", 0);
    if (is(what, "big")) {
        uint64_t size = number(r, "size", 0);
        return byte_string(wj_must_alloc(size), size);
    }
    if (is(what, "grow")) grow_until_denied(), __builtin_trap();
    if (is(what, "grown")) return grow_until_denied(), null();
    if (is(what, "exit")) proc_exit(number(r, "code", 0));
    if (is(what, "counter")) return counter++, integer(counter);
    if (is(what, "dirty")) return dirty();
    if (is(what, "log")) return log_lines(r);
    if (is(what, "heartbeat")) return heartbeats(number(r, "times", UINT64_MAX));
    if (is(what, "clock")) return clocks();
    if (is(what, "random")) return random_bytes(number(r, "size", 16));
    if (is(what, "print")) return print(r);
    return wj_fail(WJ_PERMANENT, "unknown request");
}

WJ_EXPORT(exec) uint64_t exec(const uint8_t *chunk, size_t size) {
    wj_reader r = wj_read(chunk, size), value, n = r;
    wj_string what;
    uint64_t i;
    if (wj_find(r, "do", &value) && wj_read_string(&value, WJ_TEXT, &what)) return obey(r, what);
    if (wj_read_uint(&n, &i) && i % 7 == 3) __builtin_trap();
    return wj_result(chunk, size);
}

WJ_EXPORT(aggregate) uint64_t aggregate(const uint8_t *outputs, size_t size) {
    wj_reader r = wj_read(outputs, size);
    wj_items items, entry;
    wj_string s;
    uint64_t count = 0;
    wj_enter(&r, WJ_ARRAY, &items);
    for (; wj_next(&r, &items); wj_skip(&r), count++) {
        wj_enter(&r, WJ_ARRAY, &entry), wj_skip(&r);
        wj_reader output = r;
        if (wj_read_string(&output, WJ_TEXT, &s) && is(s, "bad-aggregate")) __builtin_trap();
    }
    return integer(count);
}

// guest.h makes a guest of a C library for TestCost: each source here defines work, which
// returns a checksum of what the library made of the input. A chunk is one byte string,
// and the output the checksum.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static uint32_t work(const uint8_t *input, uint32_t size);

static uint32_t sum(uint32_t s, const void *bytes, size_t size) { // FNV-1a
    for (const uint8_t *p = bytes; size > 0; size--) s = (s ^ *p++) * 16777619;
    return s;
}

// must ends the call if the library failed.
static void must(int ok) {
    if (!ok) __builtin_trap();
}

// Nothing is freed here: the host resets the memory before the next call.
static void *must_alloc(size_t size) {
    void *p = malloc(size);
    must(p != NULL);
    return p;
}

__attribute__((export_name("alloc"))) void *guest_alloc(uint32_t size) { return must_alloc(size); }

__attribute__((export_name("exec"))) uint64_t guest_exec(const uint8_t *chunk, uint32_t size) {
    static uint8_t output[5] = {0x1a};
    uint32_t head = chunk[0] < 0x58 ? 1 : chunk[0] == 0x58 ? 2 : chunk[0] == 0x59 ? 3 : 5;
    uint32_t s = work(chunk + head, size - head);
    for (int i = 4; i > 0; i--, s >>= 8) output[i] = (uint8_t)s;
    return (uint64_t)(uintptr_t)output << 32 | sizeof output;
}

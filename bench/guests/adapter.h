// adapter.h gives one kernel two calling conventions. A kernel includes this file
// and defines
//
//     static uint64_t kernel(const uint8_t *chunk, size_t size);
//
// which takes a chunk and returns its output, as wj_result does; both are one CBOR
// item. It must not rely on zeroed memory, nor keep anything for the next call: some
// sides call one instance many times.
//
// Without EXTISM a guest has the project's own ABI (abi/ABI.md), which our runtime,
// plain wazero and wasmtime use. With EXTISM it has the imports and the export of an
// Extism plugin, written by hand for the functions that the SDK offers in
// extism:host/env; they read the input and write the output eight bytes at a time,
// as Extism's plugin kits do.
#define WJ_OWN_ALLOC
#include "wasm_jobs.h"

static uint64_t kernel(const uint8_t *chunk, size_t size);

// room frees the allocations of the last call, and makes room for an input.
static uint8_t *room(size_t size) {
    wj_top = 0;
    return wj_alloc(size);
}

#ifndef EXTISM

WJ_EXPORT(alloc) void *guest_alloc(size_t size) {
    return room(size);
}

WJ_EXPORT(exec) uint64_t guest_exec(const uint8_t *chunk, size_t size) {
    return kernel(chunk, size);
}

#else

#define EXTISM_IMPORT(name) WJ_IMPORT("extism:host/env", name)

EXTISM_IMPORT("input_length") uint64_t extism_input_length(void);
EXTISM_IMPORT("input_load_u8") uint32_t extism_input_load_u8(uint64_t at);
EXTISM_IMPORT("input_load_u64") uint64_t extism_input_load_u64(uint64_t at);
EXTISM_IMPORT("alloc") uint64_t extism_alloc(uint64_t size);
EXTISM_IMPORT("store_u8") void extism_store_u8(uint64_t at, uint32_t value);
EXTISM_IMPORT("store_u64") void extism_store_u64(uint64_t at, uint64_t value);
EXTISM_IMPORT("output_set") void extism_output_set(uint64_t at, uint64_t size);

// Extism calls without parameters; 0 is success.
WJ_EXPORT(exec) int32_t plugin_exec(void) {
    size_t size = extism_input_length(), i = 0;
    uint8_t *chunk = room(size);
    if (!chunk) return 1;
    for (; i + 8 <= size; i += 8) {
        uint64_t word = extism_input_load_u64(i);
        __builtin_memcpy(chunk + i, &word, 8);
    }
    for (; i < size; i++) chunk[i] = extism_input_load_u8(i);

    uint64_t result = kernel(chunk, size);
    const uint8_t *output = (const uint8_t *)(uintptr_t)(result >> 32);
    size_t length = (uint32_t)result;
    uint64_t to = extism_alloc(length);
    for (i = 0; i + 8 <= length; i += 8) {
        uint64_t word;
        __builtin_memcpy(&word, output + i, 8);
        extism_store_u64(to + i, word);
    }
    for (; i < length; i++) extism_store_u8(to + i, output[i]);
    extism_output_set(to, length);
    return 0;
}

#endif

// payload returns the content of a chunk that is a byte string, and traps on other
// items.
static inline wj_string payload(const uint8_t *chunk, size_t size) {
    wj_reader r = wj_read(chunk, size);
    wj_string s;
    if (!wj_read_string(&r, WJ_BYTES, &s)) __builtin_trap();
    return s;
}

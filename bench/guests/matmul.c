// matmul multiplies two square matrices of doubles. The chunk is a byte string
// of both, row by row in little-endian order; so is the product.
// Build: make -C bench guests
#include "adapter.h"

static uint64_t kernel(const uint8_t *chunk, size_t size) {
    wj_string s = payload(chunk, size);
    size_t n = 0;
    while (2 * 8 * n * n < s.size) n++;
    if (2 * 8 * n * n != s.size) __builtin_trap();

    double *a = wj_must_alloc(s.size); // aligned, unlike the chunk
    __builtin_memcpy(a, s.bytes, s.size);
    double *b = a + n * n, *c = wj_must_alloc(8 * n * n);
    for (size_t i = 0; i < n; i++) {
        double *row = c + i * n;
        for (size_t j = 0; j < n; j++) row[j] = 0;
        for (size_t k = 0; k < n; k++) {
            double x = a[i * n + k];
            for (size_t j = 0; j < n; j++) row[j] += x * b[k * n + j];
        }
    }
    wj_writer w = {0};
    wj_write_string(&w, WJ_BYTES, c, 8 * n * n);
    return wj_written(&w);
}

// Compresses the input with the fast and with the high compressor, and decompresses both.
#include "guest.h"
#include "lz4.h"
#include "lz4hc.h"

static uint32_t work(const uint8_t *input, uint32_t size) {
    int bound = LZ4_compressBound((int)size);
    char *packed = must_alloc((size_t)bound), *plain = must_alloc(size);
    uint32_t s = 0;
    for (int high = 0; high < 2; high++) {
        int n = high ? LZ4_compress_HC((const char *)input, packed, (int)size, bound, 9)
                     : LZ4_compress_default((const char *)input, packed, (int)size, bound);
        must(n > 0 && LZ4_decompress_safe(packed, plain, n, (int)size) == (int)size);
        must(memcmp(plain, input, size) == 0);
        s = sum(s, packed, (size_t)n);
    }
    return s;
}

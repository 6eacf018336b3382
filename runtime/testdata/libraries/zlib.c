// Compresses the input at level 6, and decompresses the result.
#include "guest.h"
#include "zlib.h"

static uint32_t work(const uint8_t *input, uint32_t size) {
    uLongf packed_size = compressBound(size), plain_size = size;
    uint8_t *packed = must_alloc(packed_size), *plain = must_alloc(size);
    must(compress2(packed, &packed_size, input, size, 6) == Z_OK);
    must(uncompress(plain, &plain_size, packed, packed_size) == Z_OK);
    must(plain_size == size && memcmp(plain, input, size) == 0);
    return sum(0, packed, packed_size);
}

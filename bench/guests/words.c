// words counts the words of a byte string. A word is a run of ASCII letters.
// The output is an array of [word, count], in the order of their first occurrences.
// Build: make -C bench guests
#include "adapter.h"

enum { SLOTS = 8192, MOST = SLOTS * 3 / 4 };

typedef struct {
    const uint8_t *word;
    uint32_t size, count;
} entry;

static uint16_t slots[SLOTS]; // index into entries, plus 1; 0 = free
static entry *entries;
static uint32_t used;

static inline bool letter(uint8_t c) {
    return (uint8_t)((c | 32) - 'a') < 26;
}

static void count(const uint8_t *word, size_t size) {
    uint32_t hash = 2166136261u; // FNV-1a
    for (size_t i = 0; i < size; i++) hash = (hash ^ word[i]) * 16777619u;
    uint32_t at = hash % SLOTS;
    for (; slots[at]; at = (at + 1) % SLOTS) {
        entry *e = &entries[slots[at] - 1];
        if (wj_equal(e->word, e->size, word, size)) {
            e->count++;
            return;
        }
    }
    if (used == MOST) __builtin_trap();
    entries[used++] = (entry){word, size, 1};
    slots[at] = used;
}

static uint64_t kernel(const uint8_t *chunk, size_t size) {
    wj_string s = payload(chunk, size);
    __builtin_memset(slots, 0, sizeof slots);
    entries = wj_must_alloc(MOST * sizeof(entry));
    used = 0;
    for (size_t i = 0; i < s.size;) {
        size_t start = i;
        while (i < s.size && letter(s.bytes[i])) i++;
        if (i > start) count(s.bytes + start, i - start);
        else i++;
    }
    wj_writer w = {0};
    wj_write_head(&w, WJ_ARRAY, used);
    for (uint32_t i = 0; i < used; i++) {
        wj_write_head(&w, WJ_ARRAY, 2);
        wj_write_string(&w, WJ_TEXT, entries[i].word, entries[i].size);
        wj_write_uint(&w, entries[i].count);
    }
    return wj_written(&w);
}

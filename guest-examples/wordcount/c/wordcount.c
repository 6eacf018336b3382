// wordcount counts the words of a chunk: a text or byte string, or a map with a
// string under the key "text". A word is a longest run of ASCII letters and
// digits, in lower case. The output is a map from word to count, with its keys in
// the deterministic order of RFC 8949, section 4.2.1. The job's result is the sum
// of these maps. Build: make -C guest-examples c
#include "wasm_jobs.h"

// lower maps the bytes of words to lower case, and all others to 0.
static uint8_t lower[256];

// _initialize runs before the host takes its snapshot, so the table is computed
// once, and takes no space in the binary.
WJ_EXPORT(_initialize) void initialize(void) {
    for (int c = '0'; c <= '9'; c++) lower[c] = c;
    for (int c = 'a'; c <= 'z'; c++) lower[c] = lower[c - 'a' + 'A'] = c;
}

// counts is a hash table with open addressing. Its words are not copied: they
// point into the call's input.
typedef struct {
    const uint8_t *word; // NULL = a free slot
    uint32_t size, hash;
    uint64_t count;
} slot;

typedef struct {
    slot *slots;
    uint32_t mask, used; // mask + 1 slots, a power of two
    bool overflow;
} counts;

static counts new_counts(void) {
    enum { START = 256 }; // few, because the host restores what a call has written
    return (counts){.slots = wj_must_alloc(START * sizeof(slot)), .mask = START - 1};
}

// place returns the slot of a word, or the free slot for it.
static slot *place(const counts *c, const uint8_t *word, uint32_t size, uint32_t hash) {
    for (uint32_t i = hash;; i++) {
        slot *s = &c->slots[i & c->mask];
        if (!s->word || (s->hash == hash && wj_equal(s->word, s->size, word, size))) return s;
    }
}

static void grow(counts *c) {
    counts bigger = *c;
    bigger.mask = c->mask * 2 + 1;
    bigger.slots = wj_must_alloc(((size_t)bigger.mask + 1) * sizeof(slot));
    for (uint32_t i = 0; i <= c->mask; i++) {
        slot *s = &c->slots[i];
        if (s->word) *place(&bigger, s->word, s->size, s->hash) = *s;
    }
    *c = bigger;
}

static void add(counts *c, const uint8_t *word, uint32_t size, uint32_t hash, uint64_t count) {
    slot *s = place(c, word, size, hash);
    if (s->word) {
        c->overflow |= __builtin_add_overflow(s->count, count, &s->count);
        return;
    }
    *s = (slot){word, size, hash, count};
    if (++c->used > c->mask / 4 * 3) grow(c);
}

// FNV-1a, one byte at a time.
enum { HASH_START = 0x811c9dc5, HASH_PRIME = 0x01000193 };

static uint32_t hash_of(const uint8_t *word, uint32_t size) {
    uint32_t hash = HASH_START;
    for (uint32_t i = 0; i < size; i++) hash = (hash ^ word[i]) * HASH_PRIME;
    return hash;
}

// count_words changes text to lower case in place.
static void count_words(counts *c, uint8_t *text, size_t size) {
    for (uint8_t *at = text, *end = text + size; at < end; at++) {
        uint8_t *word = at, letter;
        uint32_t hash = HASH_START;
        for (; at < end && (letter = lower[*at]); at++) {
            *at = letter;
            hash = (hash ^ letter) * HASH_PRIME;
        }
        if (at > word) add(c, word, at - word, hash, 1);
    }
}

// A ranked word is sorted by its first bytes, without fetching the word itself: its
// size up to 255, and then, if it is shorter, seven bytes of it.
typedef struct {
    uint64_t rank;
    const slot *s;
} ranked;

static ranked ranked_word(const slot *s) {
    uint64_t rank = s->size < UINT8_MAX ? s->size : UINT8_MAX;
    for (uint32_t i = 0; i < 7; i++) rank = rank << 8 | (s->size < UINT8_MAX && i < s->size ? s->word[i] : 0);
    return (ranked){rank, s};
}

// before is the order of encoded texts: shorter ones first, because of their heads.
static bool before(const ranked *x, const ranked *y) {
    if (x->rank != y->rank) return x->rank < y->rank;
    const slot *a = x->s, *b = y->s;
    if (a->size != b->size) return a->size < b->size;
    for (uint32_t i = 0; i < a->size; i++)
        if (a->word[i] != b->word[i]) return a->word[i] < b->word[i];
    return false;
}

// sorted returns the words in order, by a bottom-up merge sort, which has no bad
// cases.
static const ranked *sorted(const counts *c) {
    ranked *from = wj_must_alloc(c->used * sizeof *from), *to = wj_must_alloc(c->used * sizeof *to);
    uint32_t n = 0;
    for (uint32_t i = 0; i <= c->mask; i++)
        if (c->slots[i].word) from[n++] = ranked_word(&c->slots[i]);
    for (uint32_t run = 1; run < n; run *= 2) {
        for (uint32_t start = 0; start < n; start += 2 * run) {
            uint32_t middle = run < n - start ? start + run : n, end = run < n - middle ? middle + run : n;
            uint32_t a = start, b = middle;
            for (uint32_t i = start; i < end; i++)
                to[i] = b == end || (a < middle && !before(&from[b], &from[a])) ? from[a++] : from[b++];
        }
        ranked *swap = from;
        from = to, to = swap;
    }
    return from;
}

static void write_counts(wj_writer *w, const counts *c) {
    if (c->overflow) {
        wj_fail(WJ_PERMANENT, "overflow");
        return;
    }
    const ranked *order = sorted(c);
    size_t size = wj_head_size(c->used);
    for (uint32_t i = 0; i < c->used; i++)
        size += wj_head_size(order[i].s->size) + order[i].s->size + wj_head_size(order[i].s->count);
    wj_reserve(w, size);
    wj_write_head(w, WJ_MAP, c->used);
    for (uint32_t i = 0; i < c->used; i++) {
        wj_write_string(w, WJ_TEXT, order[i].s->word, order[i].s->size);
        wj_write_uint(w, order[i].s->count);
    }
}

static void count(wj_reader chunk, wj_writer *output) {
    wj_reader value;
    wj_string text;
    if (wj_find(chunk, "text", &value) == 1) chunk = value;
    if (!wj_read_string(&chunk, WJ_TEXT, &text) && !wj_read_string(&chunk, WJ_BYTES, &text)) {
        wj_fail(WJ_PERMANENT, "no text");
        return;
    }
    counts c = new_counts();
    count_words(&c, (uint8_t *)text.bytes, text.size); // the chunk is in our memory
    write_counts(output, &c);
}

static bool add_map(counts *c, wj_reader r) {
    wj_items pairs;
    wj_string word;
    uint64_t count;
    if (!wj_enter(&r, WJ_MAP, &pairs)) return false;
    while (wj_next(&r, &pairs)) {
        if (!wj_read_string(&r, WJ_TEXT, &word) || !wj_read_uint(&r, &count)) return false;
        add(c, word.bytes, word.size, hash_of(word.bytes, word.size), count);
    }
    return true;
}

// sum adds up the counts of chunks, or sums of counts.
static void sum(wj_outputs *outputs, wj_writer *result) {
    counts c = new_counts();
    for (wj_reader output; wj_next_output(outputs, &output);)
        if (!add_map(&c, output)) {
            wj_fail(WJ_PERMANENT, "not a word count");
            return;
        }
    write_counts(result, &c);
}

WJ_EXEC(count)
WJ_AGGREGATE(sum)
WJ_MERGE(sum)

// plan emits a request for each page of a shop. Build: make -C guest-examples c
#include "wasm_jobs.h"

// decimal writes a number as text, and returns the number of its digits.
static size_t decimal(uint64_t n, uint8_t *digits) {
    uint8_t backwards[20];
    size_t size = 0;
    do backwards[size++] = (uint8_t)('0' + n % 10);
    while (n /= 10);
    for (size_t i = 0; i < size; i++) digits[i] = backwards[size - 1 - i];
    return size;
}

static void write_request(wj_writer *w, wj_string base, uint64_t page) {
    static const char path[] = "/page/";
    enum { PATH = sizeof path - 1 };
    uint8_t *url = wj_must_alloc(base.size + PATH + 20);
    wj_copy(url, base.bytes, base.size);
    wj_copy(url + base.size, path, PATH);
    size_t size = base.size + PATH + decimal(page, url + base.size + PATH);
    wj_write_head(w, WJ_MAP, 2);
    wj_write_text(w, "data");
    wj_write_head(w, WJ_MAP, 1);
    wj_write_text(w, "url");
    wj_write_string(w, WJ_TEXT, url, size);
    wj_write_text(w, "next");
    wj_write_text(w, "fetch");
}

static void plan(wj_reader chunk, wj_writer *output) {
    wj_string base;
    uint64_t pages;
    if (!wj_get_text(chunk, "url", &base) || !wj_get_uint(chunk, "pages", &pages)) return;
    wj_write_head(output, WJ_MAP, 2);
    wj_write_text(output, "emit");
    wj_write_head(output, WJ_ARRAY, pages);
    for (uint64_t page = 0; page < pages; page++) write_request(output, base, page);
    wj_write_text(output, "next");
    wj_write_text(output, "total");
}

WJ_EXEC(plan)

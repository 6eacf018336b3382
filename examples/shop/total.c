// total adds up the prices of a shop's pages. Build: make -C guest-examples c
#include "wasm_jobs.h"

static void total(wj_reader joined, wj_writer *output) {
    wj_reader children;
    wj_items items, pair;
    uint64_t pages = 0, cents = 0, price;
    if (!wj_get(joined, "children", &children)) return;
    if (!wj_enter(&children, WJ_ARRAY, &items)) {
        wj_fail(WJ_PERMANENT, "children: not a list");
        return;
    }
    for (; wj_next(&children, &items); pages++) {
        if (!wj_enter(&children, WJ_ARRAY, &pair) || !wj_next(&children, &pair) || !wj_skip(&children) ||
            !wj_next(&children, &pair) || !wj_read_uint(&children, &price)) {
            wj_fail(WJ_PERMANENT, "children: not a price");
            return;
        }
        cents += price;
    }
    wj_write_head(output, WJ_MAP, 2);
    wj_write_text(output, "cents");
    wj_write_uint(output, cents);
    wj_write_text(output, "pages");
    wj_write_uint(output, pages);
}

WJ_EXEC(total)

// parse reads a response: a price in cents or, with status 202, the URL to ask again.
// Build: make -C guest-examples c
#include "wasm_jobs.h"

enum { OK = 200, ACCEPTED = 202 };

static void again(wj_string url, wj_writer *output) {
    wj_write_head(output, WJ_MAP, 3);
    wj_write_text(output, "data");
    wj_write_head(output, WJ_MAP, 1);
    wj_write_text(output, "url");
    wj_write_string(output, WJ_TEXT, url.bytes, url.size);
    wj_write_text(output, "next");
    wj_write_text(output, "fetch");
    wj_write_text(output, "after");
    wj_write_uint(output, 5);
}

static void price(wj_string body, wj_writer *output) {
    uint64_t cents = 0;
    for (size_t i = 0; i < body.size; i++) {
        if (body.bytes[i] < '0' || body.bytes[i] > '9' || i == 9) {
            wj_fail(WJ_PERMANENT, "body: not a price");
            return;
        }
        cents = cents * 10 + body.bytes[i] - '0';
    }
    wj_write_head(output, WJ_MAP, 2);
    wj_write_text(output, "data");
    wj_write_uint(output, cents);
    wj_write_text(output, "next");
    wj_write_text(output, "priced");
}

static void parse(wj_reader response, wj_writer *output) {
    uint64_t status;
    wj_string body;
    if (!wj_get_uint(response, "status", &status) || !wj_get_bytes(response, "body", &body)) return;
    if (status == ACCEPTED) again(body, output);
    else if (status == OK) price(body, output);
    else wj_fail(WJ_PERMANENT, "status: want 200 or 202");
}

WJ_EXEC(parse)

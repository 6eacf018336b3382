// conform is the guest in C for the conformance suite of the SDKs. A chunk that is
// a map with a text under the key "do" asks for one of
//
//	{"do": "fail", "kind": 0..2, "message": text}
//	{"do": "log", "level": integer, "message": text}    returns null
//	{"do": "heartbeat"}                                  returns its result, a boolean
//	{"do": "trap"}
//
// Any other chunk, and the input of aggregate and merge, comes back in preferred
// serialization. setup accepts any context except one that asks to fail.
#include "wasm_jobs.h"

static bool asks(wj_reader request, const char *what) {
    wj_reader value;
    wj_string text;
    return wj_find(request, "do", &value) == 1 && wj_read_string(&value, WJ_TEXT, &text) &&
           wj_equal(text.bytes, text.size, what, wj_length(what));
}

static void fail(wj_reader request) {
    uint64_t kind;
    wj_string message;
    if (!wj_get_uint(request, "kind", &kind) || !wj_get_text(request, "message", &message)) return;
    if (kind > WJ_REQUEUE)
        wj_fail_at("kind", "unknown kind");
    else
        wj_host_fail((uint32_t)kind, message.bytes, message.size);
}

static void log_line(wj_reader request) {
    int64_t level;
    wj_string message;
    if (!wj_get_int(request, "level", &level) || !wj_get_text(request, "message", &message)) return;
    if (level != (int32_t)level)
        wj_fail_at("level", "not an integer of 32 bits");
    else
        wj_host_log((int32_t)level, message.bytes, message.size);
}

static void again(wj_reader item, wj_writer *output) {
    if (!wj_write_item(output, &item)) wj_fail(WJ_PERMANENT, "not a well-formed item");
}

static void exec(wj_reader chunk, wj_writer *output) {
    if (asks(chunk, "fail")) {
        fail(chunk);
    } else if (asks(chunk, "log")) {
        log_line(chunk);
        wj_write_null(output);
    } else if (asks(chunk, "heartbeat")) {
        wj_write_bool(output, wj_heartbeat() != 0);
    } else if (asks(chunk, "trap")) {
        __builtin_trap();
    } else {
        again(chunk, output);
    }
}

// fold writes its whole input: everything after the head of the array.
static void fold(wj_outputs *outputs, wj_writer *result) {
    wj_write_head(result, WJ_ARRAY, outputs->items.left);
    wj_reader output;
    while (wj_next_output(outputs, &output)) {
        if (outputs->entries) {
            wj_write_head(result, WJ_ARRAY, 2);
            again(outputs->id, result);
        }
        again(output, result);
    }
}

static void setup(wj_reader context) {
    if (asks(context, "fail")) fail(context);
}

WJ_EXEC(exec)
WJ_AGGREGATE(fold)
WJ_MERGE(fold)
WJ_SETUP(setup)

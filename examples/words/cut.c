// cut cuts the files of a directory into pieces, and emits each as a child. A piece
// ends at a line end if possible. Build: make -C guest-examples c
#include "wasm_jobs.h"

enum { PIECE = 8192 };

// piece_size returns the size of the first piece of some bytes.
static size_t piece_size(const uint8_t *bytes, size_t size) {
    if (size <= PIECE) return size;
    for (size_t n = PIECE; n > PIECE / 2; n--)
        if (bytes[n - 1] == '\n') return n;
    return PIECE;
}

// pieces writes the children for a file, if w is not NULL, and returns their number.
static uint64_t pieces(wj_string file, wj_writer *w) {
    uint64_t n = 0;
    for (size_t at = 0; at < file.size; n++) {
        size_t size = piece_size(file.bytes + at, file.size - at);
        if (w) {
            wj_write_head(w, WJ_MAP, 2);
            wj_write_text(w, "data");
            wj_write_string(w, WJ_BYTES, file.bytes + at, size);
            wj_write_text(w, "next");
            wj_write_text(w, "count");
        }
        at += size;
    }
    return n;
}

// each cuts all files.
static bool each(wj_reader files, wj_writer *w, uint64_t *n) {
    wj_items items;
    wj_reader file, value;
    wj_string bytes;
    if (!wj_enter(&files, WJ_ARRAY, &items)) return false;
    while (wj_next(&files, &items)) {
        if (!wj_read_item(&files, &file) || wj_find(file, "bytes", &value) != 1 || !wj_read_string(&value, WJ_BYTES, &bytes)) return false;
        *n += pieces(bytes, w);
    }
    return true;
}

static void cut(wj_reader chunk, wj_writer *output) {
    wj_reader files;
    uint64_t n = 0, again = 0;
    if (wj_find(chunk, "files", &files) != 1 || !each(files, NULL, &n)) {
        wj_fail(WJ_PERMANENT, "files: not a list of files");
        return;
    }
    wj_write_head(output, WJ_MAP, 3);
    wj_write_text(output, "data");
    wj_write_head(output, WJ_MAP, 0);
    wj_write_text(output, "emit");
    wj_write_head(output, WJ_ARRAY, n);
    each(files, output, &again);
    wj_write_text(output, "next");
    wj_write_text(output, "directory");
}

WJ_EXEC(cut)

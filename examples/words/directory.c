// directory returns the children's counts, which the join has added up; for a
// directory with only empty files, no counts. Build: make -C guest-examples c
#include "wasm_jobs.h"

static void directory(wj_reader joined, wj_writer *output) {
    wj_reader counts;
    if (wj_find(joined, "children", &counts) == 1)
        wj_write_raw(output, counts.at, counts.end - counts.at);
    else
        wj_write_head(output, WJ_MAP, 0);
}

WJ_EXEC(directory)

// Inserts the words of the input into a table in memory with an index, and makes queries.
#include "guest.h"
#include "sqlite3.h"

static sqlite3 *db;

static sqlite3_stmt *prepare(const char *sql) {
    sqlite3_stmt *s;
    must(sqlite3_prepare_v2(db, sql, -1, &s, NULL) == SQLITE_OK);
    return s;
}

static uint32_t query(uint32_t s, const char *sql) {
    sqlite3_stmt *q = prepare(sql);
    while (sqlite3_step(q) == SQLITE_ROW)
        for (int i = 0; i < sqlite3_column_count(q); i++)
            s = sum(s, sqlite3_column_text(q, i), (size_t)sqlite3_column_bytes(q, i));
    must(sqlite3_finalize(q) == SQLITE_OK);
    return s;
}

static int letter(uint8_t c) { return (c | 32) >= 'a' && (c | 32) <= 'z'; }

static uint32_t work(const uint8_t *input, uint32_t size) {
    must(sqlite3_open(":memory:", &db) == SQLITE_OK);
    must(sqlite3_exec(db, "create table words (word text, line int, at int); create index by_word on words (word, at); begin",
                      NULL, NULL, NULL) == SQLITE_OK);
    sqlite3_stmt *insert = prepare("insert into words values (lower(?), ?, ?)");
    for (uint32_t i = 0, line = 1, end; i < size; i = end + 1) {
        for (end = i; end < size && letter(input[end]); end++) {}
        line += end < size && input[end] == '\n';
        if (end == i) continue;
        sqlite3_bind_text(insert, 1, (const char *)input + i, (int)(end - i), SQLITE_STATIC);
        sqlite3_bind_int(insert, 2, (int)line);
        sqlite3_bind_int(insert, 3, (int)i);
        must(sqlite3_step(insert) == SQLITE_DONE);
        sqlite3_reset(insert);
    }
    sqlite3_finalize(insert);
    must(sqlite3_exec(db, "commit", NULL, NULL, NULL) == SQLITE_OK);
    uint32_t s = query(0, "select word, count(*) n, avg(at) from words group by word order by n desc, word limit 50");
    s = query(s, "select a.word, count(*) n from words a join words b on b.word = a.word and b.line = a.line + 1 group by 1 order by n desc, 1 limit 20");
    return query(s, "select line, group_concat(word, '-') from words where word like '%er' and length(word) > 4 group by line order by line");
}

// The operating system: nothing but a name, a time that stands still and no randomness.
static int none(sqlite3_vfs *v, const char *name, sqlite3_file *f, int flags, int *out) { return SQLITE_CANTOPEN; }
static int zeros(sqlite3_vfs *v, int n, char *out) { return memset(out, 0, (size_t)n), n; }
static int now(sqlite3_vfs *v, double *day) { return *day = 0, SQLITE_OK; }
static int path(sqlite3_vfs *v, const char *name, int n, char *out) { return sqlite3_snprintf(n, out, "%s", name), SQLITE_OK; }

int sqlite3_os_init(void) {
    static sqlite3_vfs os = {.iVersion = 1, .szOsFile = sizeof(sqlite3_file), .mxPathname = 64, .zName = "none",
                             .xOpen = none, .xRandomness = zeros, .xCurrentTime = now, .xFullPathname = path};
    return sqlite3_vfs_register(&os, 1);
}
int sqlite3_os_end(void) { return SQLITE_OK; }

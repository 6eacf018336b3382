// native runs the conformance guest as a program of the host, like tests of guests
// do. Each line of its input is the first letter of an export and an item in hex;
// it prints the output in hex, or the kind and the message of the failure.
#include "conform.c"

static int digit(int c) {
    return c <= '9' ? c - '0' : c - 'a' + 10;
}

static void print(wj_outcome o) {
    if (o.failed) {
        printf("%d %s\n", (int)o.kind, o.message);
        return;
    }
    for (size_t i = 0; i < o.size; i++) printf("%02x", o.output[i]);
    printf("\n");
}

int main(void) {
    static char line[1 << 20];
    static uint8_t item[1 << 19];
    while (fgets(line, sizeof line, stdin)) {
        size_t size = 0;
        for (const char *at = line + 1; at[0] > ' ' && at[1] > ' '; at += 2)
            item[size++] = (uint8_t)(digit(at[0]) << 4 | digit(at[1]));
        print(wj_call(line[0] == 'a' ? wj_export_aggregate : line[0] == 'm' ? wj_export_merge : line[0] == 's' ? wj_export_setup : wj_export_exec, item, size));
    }
    return 0;
}

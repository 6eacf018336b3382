// Renders the input, which is Markdown, as HTML.
#include "guest.h"
#include "cmark.h"

static uint32_t work(const uint8_t *input, uint32_t size) {
    char *html = cmark_markdown_to_html((const char *)input, size, CMARK_OPT_SMART);
    must(html != NULL);
    return sum(0, html, strlen(html));
}

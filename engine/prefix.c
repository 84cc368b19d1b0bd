/* prefix.c - see prefix.h. */
#include "engine/prefix.h"

#include <nettle/sha2.h>

void prefix_root(page_key *out, const void *blob, size_t n) {
    struct sha256_ctx c;
    sha256_init(&c);
    sha256_update(&c, n, blob);
    sha256_digest(&c, sizeof out->h, out->h);
}

/* Ids are never negative, and what begins with -1 has a fixed length: no two pages give the same bytes. */
void prefix_rows(page_key *out, const page_key *parent, const prompt *p, int row0, int end) {
    struct sha256_ctx c;
    sha256_init(&c);
    sha256_update(&c, sizeof parent->h, parent->h);
    int run = prompt_run_behind(p, row0);
    CHECK(row0 >= 0 && (size_t)end <= p->ids.n);
    for (int row = row0; row < end;) {
        const prompt_rows *r = run < p->n_rows && p->rows[run].row < end ? &p->rows[run] : NULL;
        int stop = end;
        if (r && r->row <= row) {
            if (r->row + r->n <= end) stop = r->row + r->n, run++;
            const int32_t place[3] = {-1, r->from + row - r->row, stop - row};
            sha256_update(&c, sizeof place, (const uint8_t *)place);
            sha256_update(&c, sizeof p->images[r->image].key, p->images[r->image].key);
        } else {
            if (r) stop = r->row;
            sha256_update(&c, (size_t)(stop - row) * sizeof(int32_t), (const uint8_t *)(p->ids.v + row));
        }
        row = stop;
    }
    sha256_digest(&c, sizeof out->h, out->h);
}

void prefix_next(page_key *out, const page_key *parent, const prompt *p, int row0) {
    prefix_rows(out, parent, p, row0, row0 + KV_PAGE_TOK);
}

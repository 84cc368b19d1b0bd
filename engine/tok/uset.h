/* uset.h - sets of code points, and Unicode as the tokenizers library knows it.
 *
 * The library's parts follow different versions of Unicode, and none is the version of the C libraries here,
 * so every property is an explicit set from unicode_tables.c, which was measured on the library itself. A
 * uset belongs to one thread while it is built. Tested by tests/engine/tok/test_rx.c. */
#ifndef VLMD_ENGINE_TOK_USET_H
#define VLMD_ENGINE_TOK_USET_H

#include "kernels/base.h"

#define CP_MAX 0x10FFFFu

/* Sorted, disjoint, inclusive ranges; zero-initialise, uset_fini frees. */
typedef struct uset {
    struct urange {
        uint32_t first, last;
    } * v;
    size_t n, cap;
    bool failed; /* sticky: no memory */
} uset;
void uset_fini(uset *s);
void uset_add(uset *s, uint32_t first, uint32_t last); /* uset_tidy before any use other than adding */
void uset_tidy(uset *s);
void uset_add_all(uset *s, const uset *other); /* union */
void uset_invert(uset *s);
void uset_intersect(uset *s, const uset *other);
void uset_fold(uset *s); /* adds what (?i) takes for a member (single code points) */
bool uset_has(const uset *s, uint32_t cp);
/* Adds a property by name (general category, script, binary property, or a set of the table): case, spaces,
 * '-' and '_' do not matter. False: no such property. */
bool uset_add_property(uset *s, const char *name, size_t len);

/* A byte for every code point, in shared pages: one load for ASCII, two for the rest. */
typedef struct cpmap {
    uint8_t ascii[128];
    uint16_t page[0x1100];
    uint8_t *pages;
} cpmap;
static inline uint8_t cpmap_get(const cpmap *m, uint32_t cp) {
    return cp < 128 ? m->ascii[cp] : m->pages[(size_t)m->page[cp >> 8] << 8 | (cp & 255)];
}
/* Gives every code point the number of its class: two code points share a class when the same of the n sets
 * hold them. *n_class gets the count; more than 256 is ST_UNSUPPORTED. rep[class] is one member of each
 * class. */
bool cpmap_classes(cpmap *m, const uset *sets, size_t n, uint32_t rep[256], size_t *n_class, status *st);
/* Sets bit i of a code point's byte when sets[i] holds it (n <= 8). */
bool cpmap_flags(cpmap *m, const uset *sets, size_t n, status *st);
void cpmap_fini(cpmap *m);

uint32_t unicode_to_lower(uint32_t cp); /* one to one; U+0130 is the caller's */

/* What unicode_tables.c holds. */
typedef struct unicode_set {
    const char *name;
    uint32_t at, n; /* offset into unicode_ranges, count of ranges */
} unicode_set;
typedef struct unicode_alias {
    const char *name, *of;
} unicode_alias;
typedef struct unicode_map { /* from + i * stride maps to to + i * stride, i < count */
    uint32_t from;
    uint16_t count, stride;
    uint32_t to;
} unicode_map;
extern const unsigned char unicode_ranges[];
extern const unicode_set unicode_sets[];
extern const size_t unicode_sets_len;
extern const unicode_alias unicode_aliases[];
extern const size_t unicode_aliases_len;
extern const unicode_map unicode_lower[], unicode_fold[];
extern const size_t unicode_lower_len, unicode_fold_len;

#endif

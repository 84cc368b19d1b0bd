/* grapheme.c - see grapheme.h. Owns nothing. */
#include "engine/tok/grapheme.h"

#include <string.h>

enum {
    GB_CONTROL = 1,
    GB_JOINS = 2, /* Extend, ZWJ or SpacingMark: never begins a grapheme after a character */
    GB_PREPEND = 4,
    GB_PICT = 8,            /* Extended_Pictographic */
    GB_PICT_MARK = 16,      /* may stand between a pictograph and its ZWJ */
    GB_CONSONANT = 32,      /* InCB=Consonant */
    GB_LINKER = 64,         /* InCB=Linker */
    GB_CONSONANT_MARK = 128 /* may stand between a consonant, its linker and the next consonant */
};

bool grapheme_init(cpmap *m, status *st) {
    static const char *const names[] = {"gbcontrol",  "gbjoins",     "gbprepend", "gbpict",
                                        "gbpictmark", "gbconsonant", "gblinker",  "gbconsonantmark"};
    uset sets[ARRAY_LEN(names)] = {0};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        CHECK(uset_add_property(&sets[i], names[i], strlen(names[i])));
    bool ok = cpmap_flags(m, sets, ARRAY_LEN(names), st);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) uset_fini(&sets[i]);
    return ok;
}

typedef enum hangul { NO_HANGUL, L, V, T, LV, LVT } hangul;
static hangul hangul_of(uint32_t c) {
    if (c < 0x1100 || c > 0xD7FB) return NO_HANGUL;
    if (c <= 0x11FF) return c < 0x1160 ? L : c < 0x11A8 ? V : T;
    if (c >= 0xA960 && c <= 0xA97C) return L;
    if (c >= 0xAC00 && c <= 0xD7A3) return (c - 0xAC00) % 28 == 0 ? LV : LVT;
    if (c >= 0xD7B0 && c <= 0xD7C6) return V;
    return c >= 0xD7CB ? T : NO_HANGUL;
}

static bool hangul_joins(uint32_t a, uint32_t b) { /* GB6 to GB8 */
    hangul x = hangul_of(a), y = hangul_of(b);
    if (x == L) return y == L || y == V || y == LV || y == LVT;
    if (x == LV || x == V) return y == V || y == T;
    return (x == LVT || x == T) && y == T;
}

static bool regional(uint32_t c) {
    return c >= 0x1F1E6 && c <= 0x1F1FF;
}

size_t grapheme_next(const cpmap *m, const char *s, size_t n) {
    uint32_t a, b;
    size_t at = (size_t)utf8_decode(s, n, &a);
    if (!at) return 1;
    unsigned fa = cpmap_get(m, a);
    /* pict: a pictograph and what extends it; consonant, linked: a consonant, then also a linker */
    bool pict = fa & GB_PICT, consonant = fa & GB_CONSONANT, linked = false, half_flag = regional(a);
    while (at < n) {
        int k = utf8_decode(s + at, n - at, &b);
        if (!k) break;
        unsigned fb = cpmap_get(m, b);
        bool joins;
        if (a == '\r' && b == '\n')
            joins = true; /* GB3 */
        else if ((fa | fb) & GB_CONTROL)
            joins = false; /* GB4, GB5 */
        else
            joins = (fb & GB_JOINS) || (fa & GB_PREPEND) || hangul_joins(a, b) || /* GB9, 9a, 9b, 6 to 8 */
                    (linked && (fb & GB_CONSONANT)) ||                            /* GB9c */
                    (pict && a == 0x200D && (fb & GB_PICT)) ||                    /* GB11 */
                    (half_flag && regional(b));                                   /* GB12, GB13 */
        if (!joins) break;
        bool extends = fb & (GB_CONSONANT_MARK | GB_LINKER);
        pict = (fb & GB_PICT) || (pict && ((fb & GB_PICT_MARK) || b == 0x200D));
        half_flag = regional(b) && !(half_flag && regional(a));
        linked = extends && (linked || (consonant && (fb & GB_LINKER)));
        consonant = (fb & GB_CONSONANT) || (consonant && extends);
        a = b;
        fa = fb;
        at += (size_t)k;
    }
    return at;
}

/* text.c - Unicode as Python's str methods see it: classes, case, stripping. Stateless.
 * Case keeps origin: what a user's character becomes is the user's. Source: Python's str (Unicode's
 * SpecialCasing for the mappings to several characters); utf8proc for categories and simple mappings. */
#include <string.h>
#include <utf8proc.h>

#include "engine/tmpl/text_tables.h"
#include "engine/tmpl/value.h"

static bool in_ranges(const uint32_t (*t)[2], size_t n, uint32_t cp) {
    size_t lo = 0, hi = n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (t[mid][1] < cp)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < n && t[lo][0] <= cp;
}
#define IN(table, cp) in_ranges(table, ARRAY_LEN(table), cp)

static const uint32_t *in_map(const uint32_t (*t)[4], size_t n, uint32_t cp) {
    size_t lo = 0, hi = n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (t[mid][0] < cp)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < n && t[lo][0] == cp ? t[lo] + 1 : NULL;
}
#define MAP(table, cp) in_map(table, ARRAY_LEN(table), cp)

static utf8proc_category_t category(uint32_t cp) {
    return utf8proc_category((utf8proc_int32_t)cp);
}

bool uc_space(uint32_t cp) {
    if (cp < 0x80) return (cp >= 9 && cp <= 13) || (cp >= 28 && cp <= 32);
    return cp == 0x85 || cp == 0xA0 || cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 ||
           cp == 0x2029 || cp == 0x202F || cp == 0x205F || cp == 0x3000;
}

bool uc_linebreak(uint32_t cp) {
    return (cp >= 10 && cp <= 13) || (cp >= 28 && cp <= 30) || cp == 0x85 || cp == 0x2028 || cp == 0x2029;
}

bool uc_printable(uint32_t cp) {
    if (cp < 0x80) return cp >= 32 && cp < 127;
    switch (category(cp)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS: return false;
    default: return true;
    }
}

bool uc_alpha(uint32_t cp) {
    utf8proc_category_t c = category(cp);
    return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
}
bool uc_decimal(uint32_t cp) {
    return category(cp) == UTF8PROC_CATEGORY_ND;
}
bool uc_digit(uint32_t cp) {
    return uc_decimal(cp) || IN(other_digit, cp);
}
bool uc_numeric(uint32_t cp) {
    return uc_digit(cp) || IN(other_numeric, cp);
}
bool uc_upper(uint32_t cp) {
    return category(cp) == UTF8PROC_CATEGORY_LU || IN(other_upper, cp);
}
bool uc_lower(uint32_t cp) {
    return category(cp) == UTF8PROC_CATEGORY_LL || IN(other_lower, cp);
}
bool uc_title(uint32_t cp) {
    return category(cp) == UTF8PROC_CATEGORY_LT;
}
bool uc_word(uint32_t cp) {
    return cp == '_' || uc_alpha(cp) || uc_numeric(cp);
}

static bool cased(uint32_t cp) {
    return uc_upper(cp) || uc_lower(cp) || uc_title(cp);
}

static bool case_ignorable(uint32_t cp) {
    utf8proc_category_t c = category(cp);
    return c == UTF8PROC_CATEGORY_MN || c == UTF8PROC_CATEGORY_ME || c == UTF8PROC_CATEGORY_CF ||
           c == UTF8PROC_CATEGORY_LM || c == UTF8PROC_CATEGORY_SK || cp == '\'' || cp == '.' || cp == ':' ||
           cp == 0xB7 || cp == 0x2018 || cp == 0x2019 || cp == 0x2024 || cp == 0x2027;
}

/* A capital sigma at the end of a word has its own small form. */
static bool final_sigma(const str *s, size_t i, size_t len) {
    uint32_t cp;
    size_t j = i;
    bool before = false;
    for (int tries = 0; j > 0 && tries < 64; tries++) {
        do j--;
        while (j > 0 && ((unsigned char)s->p[j] & 0xC0) == 0x80);
        str_char(s, j, &cp);
        if (case_ignorable(cp)) continue;
        before = cased(cp);
        break;
    }
    if (!before) return false;
    j = i + len;
    for (int tries = 0; j < s->n && tries < 64; tries++) {
        j += (size_t)str_char(s, j, &cp);
        if (case_ignorable(cp)) continue;
        return !cased(cp);
    }
    return true;
}

static void put_mapped(sb *b, const uint32_t *to, uint32_t simple, bool user) {
    if (!to) {
        sb_cp(b, simple, user);
        return;
    }
    for (int i = 0; i < 3 && to[i]; i++) sb_cp(b, to[i], user);
}

static void put_lower(sb *b, const str *s, size_t i, size_t len, uint32_t cp, bool user) {
    if (cp == 0x3A3 && final_sigma(s, i, len))
        sb_cp(b, 0x3C2, user);
    else if (cp == 0x130) {
        sb_cp(b, 'i', user);
        sb_cp(b, 0x307, user);
    } else
        sb_cp(b, (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp), user);
}

str *str_case(env *e, const str *s, case_op op) {
    sb b = sb_new(e);
    env_step(e, s->n / 16);
    bool in_word = false;
    size_t next_user = 0; /* spans are walked along with the text */
    for (size_t i = 0; i < s->n;) {
        uint32_t cp;
        size_t k = (size_t)str_char(s, i, &cp);
        while (next_user < s->n_user && s->user[next_user].end <= i) next_user++;
        bool user = next_user < s->n_user && s->user[next_user].begin <= i;
        case_op one = op;
        if (op == CASE_TITLE && in_word) one = CASE_LOWER;
        if (op == CASE_CAPITALIZE) one = i == 0 ? CASE_TITLE : CASE_LOWER;
        if (op == CASE_SWAP) one = uc_upper(cp) ? CASE_LOWER : uc_lower(cp) ? CASE_UPPER : CASE_SWAP;
        if (one == CASE_UPPER)
            put_mapped(&b, MAP(full_upper, cp), (uint32_t)utf8proc_toupper((int32_t)cp), user);
        else if (one == CASE_TITLE)
            put_mapped(&b, MAP(full_title, cp), (uint32_t)utf8proc_totitle((int32_t)cp), user);
        else if (one == CASE_FOLD)
            put_mapped(&b, MAP(full_fold, cp), (uint32_t)utf8proc_tolower((int32_t)cp), user);
        else if (one == CASE_LOWER)
            put_lower(&b, s, i, k, cp, user);
        else
            sb_cp(&b, cp, user);
        in_word = cased(cp);
        i += k;
    }
    str *r = sb_done(&b);
    r->markup = s->markup;
    return r;
}

static bool strip_hit(const str *chars, uint32_t cp) {
    if (!chars) return uc_space(cp);
    for (size_t i = 0; i < chars->n;) {
        uint32_t c;
        i += (size_t)str_char(chars, i, &c);
        if (c == cp) return true;
    }
    return false;
}

str *str_strip(env *e, const str *s, const str *chars, bool left, bool right) {
    size_t b = 0, n = s->n, work = chars ? chars->n / 8 + 1 : 1;
    uint32_t cp;
    while (left && b < n) {
        int k = str_char(s, b, &cp);
        if (!strip_hit(chars, cp)) break;
        b += (size_t)k;
        env_step(e, work);
    }
    while (right && n > b) {
        size_t at = n - 1;
        while (at > b && n - at < 4 && ((unsigned char)s->p[at] & 0xC0) == 0x80) at--;
        str_char(s, at, &cp);
        if (!strip_hit(chars, cp)) break;
        n = at;
        env_step(e, work);
    }
    return str_sub(e, s, b, n);
}

static void escape_html(char to[16], uint32_t cp, int how) {
    (void)how;
    if (cp == '&')
        strcpy(to, "&amp;");
    else if (cp == '<')
        strcpy(to, "&lt;");
    else if (cp == '>')
        strcpy(to, "&gt;");
    else if (cp == '"')
        strcpy(to, "&#34;");
    else if (cp == '\'')
        strcpy(to, "&#39;");
}

str *str_html_escape(env *e, const str *s) {
    sb b = sb_new(e);
    sb_escaped(&b, s, escape_html, 0);
    str *r = sb_done(&b);
    r->markup = true;
    return r;
}

/* methods.c - the methods of str, as Python has them. Every result keeps the origin of the bytes it took
 * over. Memory is the env's. Source: Python 3's str. */
#include <string.h>

#include "engine/tmpl/value.h"

static int64_t int_or(env *e, val v, int64_t none, const char *what) {
    if (v.t == V_MISSING || v.t == V_NONE) return none;
    return need_int(e, v, what);
}

#define CASE_METHOD(name, op)                                                                                \
    static val m_##name(env *e, val self, const args *a) {                                                   \
        bind_pos(e, #name, a, 0, 0, NULL);                                                                   \
        return str_val(str_case(e, self.s, op));                                                             \
    }
CASE_METHOD(upper, CASE_UPPER)
CASE_METHOD(lower, CASE_LOWER)
CASE_METHOD(title, CASE_TITLE)
CASE_METHOD(capitalize, CASE_CAPITALIZE)
CASE_METHOD(swapcase, CASE_SWAP)
CASE_METHOD(casefold, CASE_FOLD)

static val strip_with(env *e, val self, const args *a, const char *fn, bool left, bool right) {
    val v;
    bind_pos(e, fn, a, 0, 1, &v);
    const str *chars = v.t == V_MISSING || v.t == V_NONE ? NULL : need_str(e, v, "strip() argument");
    return str_val(str_strip(e, self.s, chars, left, right));
}
static val m_strip(env *e, val self, const args *a) {
    return strip_with(e, self, a, "strip", true, true);
}
static val m_lstrip(env *e, val self, const args *a) {
    return strip_with(e, self, a, "lstrip", true, false);
}
static val m_rstrip(env *e, val self, const args *a) {
    return strip_with(e, self, a, "rstrip", false, true);
}

/* ---- split ---- */

static void push_sub(env *e, list *l, str *s, size_t b, size_t n) {
    list_push(e, l, str_val(str_sub(e, s, b, n)));
}

static list *split_space(env *e, str *s, int64_t max) {
    list *l = list_new(e, 0);
    uint32_t cp;
    size_t i = 0;
    env_step(e, s->n / 16);
    for (;;) {
        while (i < s->n) {
            int k = str_char(s, i, &cp);
            if (!uc_space(cp)) break;
            i += (size_t)k;
        }
        if (i >= s->n) return l;
        if (max >= 0 && (int64_t)l->n == max) {
            str *rest = str_sub(e, s, i, s->n);
            list_push(e, l, str_val(str_strip(e, rest, NULL, false, true)));
            return l;
        }
        size_t b = i;
        while (i < s->n) {
            int k = str_char(s, i, &cp);
            if (uc_space(cp)) break;
            i += (size_t)k;
        }
        env_step(e, 1);
        push_sub(e, l, s, b, i);
    }
}

static void reverse(list *l) {
    for (size_t i = 0, j = l->n; i + 1 < j; i++) {
        val t = l->v[i];
        l->v[i] = l->v[--j];
        l->v[j] = t;
    }
}

static list *rsplit_space(env *e, str *s, int64_t max) {
    if (max < 0) return split_space(e, s, -1);
    list *l = list_new(e, 0);
    size_t end = s->n;
    for (;;) {
        str *head = str_strip(e, str_sub(e, s, 0, end), NULL, false, true);
        if (head->n == 0) break;
        if ((int64_t)l->n == max) {
            list_push(e, l, str_val(str_strip(e, head, NULL, true, false)));
            break;
        }
        size_t b = head->n;
        while (b > 0) {
            size_t at = b - 1;
            uint32_t cp;
            while (at > 0 && ((unsigned char)s->p[at] & 0xC0) == 0x80) at--;
            str_char(s, at, &cp);
            if (uc_space(cp)) break;
            b = at;
        }
        env_step(e, (head->n - b) / 16 + 1);
        push_sub(e, l, s, b, head->n);
        end = b;
    }
    reverse(l);
    return l;
}

static list *split_on(env *e, str *s, str *sep, int64_t max) {
    if (sep->n == 0) fail(e, "empty separator");
    list *l = list_new(e, 0);
    size_t b = 0;
    while (max < 0 || (int64_t)l->n < max) {
        size_t i = str_find(e, s, sep, b, s->n);
        if (i == SIZE_MAX) break;
        push_sub(e, l, s, b, i);
        b = i + sep->n;
    }
    push_sub(e, l, s, b, s->n);
    return l;
}

static list *rsplit_on(env *e, str *s, str *sep, int64_t max) {
    if (max < 0) max = INT64_MAX;
    if (sep->n == 0) fail(e, "empty separator");
    list *l = list_new(e, 0);
    size_t end = s->n;
    while ((int64_t)l->n < max) {
        size_t i = str_rfind(e, s, sep, 0, end);
        if (i == SIZE_MAX) break;
        push_sub(e, l, s, i + sep->n, end);
        end = i;
    }
    push_sub(e, l, s, 0, end);
    reverse(l);
    return l;
}

static val split_with(env *e, val self, const args *a, bool right) {
    static const char *const names[] = {"sep", "maxsplit"};
    val v[2];
    bind_args(e, right ? "rsplit" : "split", a, names, 0, 2, v);
    int64_t max = v[1].t == V_MISSING ? -1 : need_int(e, v[1], "maxsplit");
    if (v[0].t == V_MISSING || v[0].t == V_NONE)
        return list_val(right ? rsplit_space(e, self.s, max) : split_space(e, self.s, max));
    str *sep = need_str(e, v[0], "the separator");
    return list_val(right ? rsplit_on(e, self.s, sep, max) : split_on(e, self.s, sep, max));
}
static val m_split(env *e, val self, const args *a) {
    return split_with(e, self, a, false);
}
static val m_rsplit(env *e, val self, const args *a) {
    return split_with(e, self, a, true);
}

static val m_splitlines(env *e, val self, const args *a) {
    static const char *const names[] = {"keepends"};
    val v;
    bind_args(e, "splitlines", a, names, 0, 1, &v);
    bool keep = v.t != V_MISSING && val_truth(e, v);
    str *s = self.s;
    list *l = list_new(e, 0);
    uint32_t cp;
    env_step(e, s->n / 16);
    size_t b = 0;
    for (size_t i = 0; i < s->n;) {
        size_t k = (size_t)str_char(s, i, &cp);
        if (!uc_linebreak(cp)) {
            i += k;
            continue;
        }
        size_t next = i + k;
        if (cp == '\r' && next < s->n && s->p[next] == '\n') next++;
        env_step(e, 1);
        push_sub(e, l, s, b, keep ? next : i);
        b = i = next;
    }
    if (b < s->n) push_sub(e, l, s, b, s->n);
    return list_val(l);
}

static val partition_at(env *e, val self, const args *a, bool right) {
    val v;
    bind_pos(e, right ? "rpartition" : "partition", a, 1, 1, &v);
    str *s = self.s, *sep = need_str(e, v, "the separator");
    if (sep->n == 0) fail(e, "empty separator");
    size_t i = right ? str_rfind(e, s, sep, 0, s->n) : str_find(e, s, sep, 0, s->n);
    list *l = list_new(e, 3);
    if (i == SIZE_MAX) {
        if (!right) list_push(e, l, self);
        list_push(e, l, lit_val(e, ""));
        list_push(e, l, lit_val(e, ""));
        if (right) list_push(e, l, self);
        return tuple_val(l);
    }
    push_sub(e, l, s, 0, i);
    list_push(e, l, str_val(sep));
    push_sub(e, l, s, i + sep->n, s->n);
    return tuple_val(l);
}
static val m_partition(env *e, val self, const args *a) {
    return partition_at(e, self, a, false);
}
static val m_rpartition(env *e, val self, const args *a) {
    return partition_at(e, self, a, true);
}

/* ---- search ---- */

/* The code point bounds of an optional start, stop pair, as byte offsets; false when the range is impossible.
 */
static bool search_range(env *e, str *s, val start, val stop, size_t *b, size_t *n) {
    int64_t len = (int64_t)str_len(e, s), x = int_or(e, start, 0, "start"), y = int_or(e, stop, len, "end");
    if (x < 0) x = x + len < 0 ? 0 : x + len;
    if (y < 0) y = y + len < 0 ? 0 : y + len;
    if (y > len) y = len;
    if (x > y) return false;
    *b = str_offset(e, s, (size_t)x);
    *n = str_offset(e, s, (size_t)y);
    return true;
}

static int64_t search(env *e, val self, const args *a, const char *fn, bool right) {
    val v[3];
    bind_pos(e, fn, a, 1, 3, v);
    size_t b, n;
    str *needle = need_str(e, v[0], "the substring");
    if (!search_range(e, self.s, v[1], v[2], &b, &n)) return -1;
    size_t i = right ? str_rfind(e, self.s, needle, b, n) : str_find(e, self.s, needle, b, n);
    if (i == SIZE_MAX) return -1;
    str head = {.p = self.s->p, .n = i, .n_cp = SIZE_MAX};
    return (int64_t)str_len(e, &head);
}
static val m_find(env *e, val self, const args *a) {
    return int_val(search(e, self, a, "find", false));
}
static val m_rfind(env *e, val self, const args *a) {
    return int_val(search(e, self, a, "rfind", true));
}
static val m_index(env *e, val self, const args *a) {
    int64_t i = search(e, self, a, "index", false);
    if (i < 0) fail(e, "substring not found");
    return int_val(i);
}
static val m_rindex(env *e, val self, const args *a) {
    int64_t i = search(e, self, a, "rindex", true);
    if (i < 0) fail(e, "substring not found");
    return int_val(i);
}

static val m_count(env *e, val self, const args *a) {
    val v[3];
    bind_pos(e, "count", a, 1, 3, v);
    str *needle = need_str(e, v[0], "the substring");
    size_t b, n;
    int64_t hits = 0;
    if (!search_range(e, self.s, v[1], v[2], &b, &n)) return int_val(0);
    if (needle->n == 0) {
        str part = {.p = self.s->p + b, .n = n - b, .n_cp = SIZE_MAX};
        return int_val((int64_t)str_len(e, &part) + 1);
    }
    while ((b = str_find(e, self.s, needle, b, n)) != SIZE_MAX) {
        hits++;
        b += needle->n;
    }
    return int_val(hits);
}

static bool has_affix(const str *s, const str *x, size_t b, size_t n, bool end) {
    if (x->n > n - b) return false;
    return memcmp(s->p + (end ? n - x->n : b), x->p, x->n) == 0;
}

static val affix(env *e, val self, const args *a, bool end) {
    val v[3];
    bind_pos(e, end ? "endswith" : "startswith", a, 1, 3, v);
    size_t b, n;
    bool in_range = search_range(e, self.s, v[1], v[2], &b, &n);
    if (v[0].t == V_TUPLE) {
        for (size_t i = 0; i < v[0].l->n; i++) {
            env_step(e, 1);
            str *x = need_str(e, v[0].l->v[i], "an item of the tuple");
            if (in_range && has_affix(self.s, x, b, n, end)) return bool_val(true);
        }
        return bool_val(false);
    }
    if (v[0].t == V_UNDEF)
        fail(e, "%s first arg must be str or a tuple of str, not Undefined", end ? "endswith" : "startswith");
    str *x = need_str(e, v[0], "the argument of startswith or endswith");
    return bool_val(in_range && has_affix(self.s, x, b, n, end));
}
static val m_startswith(env *e, val self, const args *a) {
    return affix(e, self, a, false);
}
static val m_endswith(env *e, val self, const args *a) {
    return affix(e, self, a, true);
}

static val m_removeprefix(env *e, val self, const args *a) {
    val v;
    bind_pos(e, "removeprefix", a, 1, 1, &v);
    str *x = need_str(e, v, "the prefix");
    bool hit = has_affix(self.s, x, 0, self.s->n, false);
    return str_val(str_sub(e, self.s, hit ? x->n : 0, self.s->n));
}
static val m_removesuffix(env *e, val self, const args *a) {
    val v;
    bind_pos(e, "removesuffix", a, 1, 1, &v);
    str *x = need_str(e, v, "the suffix");
    bool hit = has_affix(self.s, x, 0, self.s->n, true);
    return str_val(str_sub(e, self.s, 0, self.s->n - (hit ? x->n : 0)));
}

/* ---- replace, join ---- */

/* What replaces text that the user typed counts as the user's: else <image> typed by hand could become a
 * placeholder in a template that rewrites it. */
str *str_replace(env *e, str *s, str *from, str *to, int64_t max) {
    if (max < 0) max = INT64_MAX;
    str *to_user = str_new(e, to->p, to->n, true);
    sb b = sb_new(e);
    size_t at = 0;
    if (from->n == 0) { /* between all characters, and at both ends */
        to = str_any_user(s) ? to_user : to;
        while (max > 0) {
            max--;
            sb_str(&b, to);
            if (at >= s->n) break;
            uint32_t cp;
            size_t k = (size_t)str_char(s, at, &cp);
            env_step(e, 1);
            sb_sub(&b, s, at, at + k);
            at += k;
        }
    } else {
        for (; max > 0; max--) {
            size_t i = str_find(e, s, from, at, s->n);
            if (i == SIZE_MAX) break;
            sb_sub(&b, s, at, i);
            sb_str(&b, str_user_in(s, i, i + from->n) ? to_user : to);
            at = i + from->n;
        }
        if (at == 0) return s;
    }
    sb_sub(&b, s, at, s->n);
    str *r = sb_done(&b);
    r->markup = s->markup;
    return r;
}

static val m_replace(env *e, val self, const args *a) {
    val v[3];
    bind_pos(e, "replace", a, 2, 3, v);
    int64_t max = v[2].t == V_MISSING ? -1 : need_int(e, v[2], "count");
    return str_val(
        str_replace(e, self.s, need_str(e, v[0], "the old text"), need_str(e, v[1], "the new text"), max));
}

static val m_join(env *e, val self, const args *a) {
    val v, x;
    bind_pos(e, "join", a, 1, 1, &v);
    if (!val_iterable(v)) fail(e, "can only join an iterable");
    sb b = sb_new(e);
    iter *it = iter_of(e, v);
    for (bool first = true; iter_next(e, it, &x); first = false) {
        if (!first) sb_str(&b, self.s);
        if (x.t != V_STR) fail(e, "sequence item: expected str instance, %s found", type_name(x));
        sb_str(&b, x.s);
    }
    return str_val(sb_done(&b));
}

/* ---- padding ---- */

static str *pad(env *e, str *s, size_t left, size_t right, str *fill) {
    sb b = sb_new(e);
    sb_repeat(&b, fill, left);
    sb_str(&b, s);
    sb_repeat(&b, fill, right);
    return sb_done(&b);
}

static val justify(env *e, val self, const args *a, const char *fn, char how) {
    val v[2];
    bind_pos(e, fn, a, 1, 2, v);
    int64_t width = need_int(e, v[0], "the width");
    str *fill = v[1].t == V_MISSING ? str_lit(e, " ") : need_str(e, v[1], "the fill character");
    if (str_len(e, fill) != 1) fail(e, "The fill character must be exactly one character long");
    int64_t len = (int64_t)str_len(e, self.s);
    if (width <= len) return self;
    size_t more = (size_t)(width - len), left = 0;
    if (how == 'r') left = more;
    if (how == 'c') left = more / 2 + (more & (size_t)width & 1);
    return str_val(pad(e, self.s, left, more - left, fill));
}
static val m_center(env *e, val self, const args *a) {
    return justify(e, self, a, "center", 'c');
}
static val m_ljust(env *e, val self, const args *a) {
    return justify(e, self, a, "ljust", 'l');
}
static val m_rjust(env *e, val self, const args *a) {
    return justify(e, self, a, "rjust", 'r');
}

static val m_zfill(env *e, val self, const args *a) {
    val v;
    bind_pos(e, "zfill", a, 1, 1, &v);
    int64_t width = need_int(e, v, "the width"), len = (int64_t)str_len(e, self.s);
    if (width <= len) return self;
    sb b = sb_new(e);
    size_t sign = self.s->n && (self.s->p[0] == '-' || self.s->p[0] == '+');
    sb_sub(&b, self.s, 0, sign);
    sb_repeat(&b, str_lit(e, "0"), (size_t)(width - len));
    sb_sub(&b, self.s, sign, self.s->n);
    return str_val(sb_done(&b));
}

static val m_expandtabs(env *e, val self, const args *a) {
    static const char *const names[] = {"tabsize"};
    val v;
    bind_args(e, "expandtabs", a, names, 0, 1, &v);
    int64_t tab = v.t == V_MISSING ? 8 : need_int(e, v, "tabsize"), col = 0;
    sb b = sb_new(e);
    uint32_t cp;
    env_step(e, self.s->n / 16);
    for (size_t i = 0; i < self.s->n;) {
        size_t k = (size_t)str_char(self.s, i, &cp);
        if (cp == '\t') {
            int64_t n = tab > 0 ? tab - col % tab : 0;
            sb_repeat(&b, str_sub(e, str_lit(e, " "), 0, 1), (size_t)n);
            col += n;
        } else {
            sb_sub(&b, self.s, i, i + k);
            col = cp == '\n' || cp == '\r' ? 0 : col + 1;
        }
        i += k;
    }
    return str_val(sb_done(&b));
}

/* ---- questions ---- */

static val all_chars(env *e, val self, const args *a, const char *fn, bool (*is)(uint32_t), bool empty) {
    bind_pos(e, fn, a, 0, 0, NULL);
    uint32_t cp;
    env_step(e, self.s->n / 16);
    for (size_t i = 0; i < self.s->n;) {
        i += (size_t)str_char(self.s, i, &cp);
        if (!is(cp)) return bool_val(false);
    }
    return bool_val(self.s->n > 0 || empty);
}
static bool is_alnum(uint32_t cp) {
    return uc_alpha(cp) || uc_numeric(cp);
}
static bool is_ascii(uint32_t cp) {
    return cp < 0x80;
}
#define CLASS_METHOD(name, fn, empty)                                                                        \
    static val m_##name(env *e, val self, const args *a) {                                                   \
        return all_chars(e, self, a, #name, fn, empty);                                                      \
    }
CLASS_METHOD(isspace, uc_space, false)
CLASS_METHOD(isalpha, uc_alpha, false)
CLASS_METHOD(isdigit, uc_digit, false)
CLASS_METHOD(isdecimal, uc_decimal, false)
CLASS_METHOD(isnumeric, uc_numeric, false)
CLASS_METHOD(isalnum, is_alnum, false)
CLASS_METHOD(isascii, is_ascii, true)
CLASS_METHOD(isprintable, uc_printable, true)

bool str_all_cased(env *e, const str *s, bool upper) {
    bool any = false;
    uint32_t cp;
    env_step(e, s->n / 16);
    for (size_t i = 0; i < s->n;) {
        i += (size_t)str_char(s, i, &cp);
        if (upper ? uc_lower(cp) || uc_title(cp) : uc_upper(cp) || uc_title(cp)) return false;
        any |= upper ? uc_upper(cp) : uc_lower(cp);
    }
    return any;
}
static val m_isupper(env *e, val self, const args *a) {
    bind_pos(e, "isupper", a, 0, 0, NULL);
    return bool_val(str_all_cased(e, self.s, true));
}
static val m_islower(env *e, val self, const args *a) {
    bind_pos(e, "islower", a, 0, 0, NULL);
    return bool_val(str_all_cased(e, self.s, false));
}
static val m_istitle(env *e, val self, const args *a) {
    bind_pos(e, "istitle", a, 0, 0, NULL);
    bool in_word = false, any = false;
    uint32_t cp;
    env_step(e, self.s->n / 16);
    for (size_t i = 0; i < self.s->n;) {
        i += (size_t)str_char(self.s, i, &cp);
        bool up = uc_upper(cp) || uc_title(cp), low = uc_lower(cp);
        if ((up && in_word) || (low && !in_word)) return bool_val(false);
        any |= up || low;
        in_word = up || low;
    }
    return bool_val(any);
}
static val m_isidentifier(env *e, val self, const args *a) {
    bind_pos(e, "isidentifier", a, 0, 0, NULL);
    uint32_t cp;
    for (size_t i = 0; i < self.s->n;) {
        bool first = i == 0;
        i += (size_t)str_char(self.s, i, &cp);
        if (!(cp == '_' || uc_alpha(cp) || (!first && uc_decimal(cp)))) return bool_val(false);
    }
    return bool_val(self.s->n > 0);
}

static val m_format(env *e, val self, const args *a) {
    return str_val(format_braces(e, self.s, a));
}
static val m_format_map(env *e, val self, const args *a) {
    val v;
    bind_pos(e, "format_map", a, 1, 1, &v);
    return format_map_args(e, self.s, v);
}

const func *str_method(const str *name) {
    static const func all[] = {
        {"strip", m_strip},
        {"split", m_split},
        {"startswith", m_startswith},
        {"endswith", m_endswith},
        {"replace", m_replace},
        {"lstrip", m_lstrip},
        {"rstrip", m_rstrip},
        {"upper", m_upper},
        {"lower", m_lower},
        {"title", m_title},
        {"capitalize", m_capitalize},
        {"join", m_join},
        {"format", m_format},
        {"format_map", m_format_map},
        {"find", m_find},
        {"rfind", m_rfind},
        {"index", m_index},
        {"rindex", m_rindex},
        {"count", m_count},
        {"rsplit", m_rsplit},
        {"splitlines", m_splitlines},
        {"partition", m_partition},
        {"rpartition", m_rpartition},
        {"removeprefix", m_removeprefix},
        {"removesuffix", m_removesuffix},
        {"zfill", m_zfill},
        {"center", m_center},
        {"ljust", m_ljust},
        {"rjust", m_rjust},
        {"expandtabs", m_expandtabs},
        {"swapcase", m_swapcase},
        {"casefold", m_casefold},
        {"isspace", m_isspace},
        {"isalpha", m_isalpha},
        {"isdigit", m_isdigit},
        {"isdecimal", m_isdecimal},
        {"isnumeric", m_isnumeric},
        {"isalnum", m_isalnum},
        {"isascii", m_isascii},
        {"isupper", m_isupper},
        {"islower", m_islower},
        {"istitle", m_istitle},
        {"isprintable", m_isprintable},
        {"isidentifier", m_isidentifier},
    };
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        if (str_is(name, all[i].name)) return &all[i];
    return NULL;
}

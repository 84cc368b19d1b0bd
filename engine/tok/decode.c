/* decode.c - the decoders of tokenizer.json, as a chain that takes one token after another.
 *
 * The library decodes a list of strings to a list of strings, stage after stage. Here each stage is a small
 * state machine that passes on what has become certain, so that a stream and a whole list go through the same
 * code. What flows between stages are tokens in fragments: bytes, and a mark where a token ends. A stage that
 * must see a whole token first collects it. A decoder is read-only after decoder_load; a tok_stream belongs
 * to one thread and owns its stages' state. Source: huggingface/tokenizers decoders/. Tested by
 * tests/engine/tok/test_tok.c. */
#include "engine/tok/tok_int.h"

#include <string.h>

#define DEPTH_MAX  16
#define STAGES_MAX 64

typedef enum stage_kind {
    DEC_BYTE_LEVEL,
    DEC_BYTE_FALLBACK,
    DEC_FUSE,
    DEC_STRIP,
    DEC_REPLACE,
    DEC_METASPACE,
    DEC_BPE,
    DEC_WORDPIECE,
    DEC_JOIN /* no decoder at all: tokens joined by spaces */
} stage_kind;

typedef struct stage {
    stage_kind kind;
    rx *pattern; /* Replace */
    char *text;  /* Replace: content; Strip, Metaspace: a character; BPEDecoder: suffix; WordPiece: prefix */
    size_t text_n;
    char *literal; /* Replace of plain text: what is replaced */
    size_t literal_n;
    size_t start, stop; /* Strip */
    bool keep_first;    /* Metaspace: the marks of the first token become spaces too */
    bool cleanup;       /* WordPiece */
} stage;

struct decoder {
    stage v[STAGES_MAX];
    size_t n;
};

void decoder_free(decoder *d) {
    if (!d) return;
    for (size_t i = 0; i < d->n; i++) {
        rx_free(d->v[i].pattern);
        mem_free(d->v[i].text);
        mem_free(d->v[i].literal);
    }
    mem_free(d);
}

/* ---- a chain at work ---- */

typedef struct stage_state {
    buf token;    /* a token whose end has not come, or a part of it held back */
    buf run;      /* bytes of tokens that have ended, held back (ByteLevel, ByteFallback, BPEDecoder) */
    size_t index; /* tokens that have ended */
    size_t stripped, held; /* Strip: cut from the start; characters held back at the end */
    bool inside;           /* a token has begun */
} stage_state;

struct tok_stream {
    const tok *t;
    bool skip_special;
    stage_state v[STAGES_MAX];
    rx_work rx;
    buf *out;
    bool failed;
};

static const decoder no_decoder = {.v = {{.kind = DEC_JOIN}}, .n = 1};
static const decoder *chain_of(const tok *t) {
    return t->decoder ? t->decoder : &no_decoder;
}

static void feed(tok_stream *s, size_t i, const char *p, size_t n, bool end);

static bool collect(tok_stream *s, buf *b, const char *p, size_t n) {
    if (!buf_append(b, p, n)) s->failed = true;
    return !s->failed;
}

/* Writes bytes as text: whole characters at once, U+FFFD for what cannot be one, the rest stays in x->run. */
static void pass_bytes(tok_stream *s, size_t i, stage_state *x, bool all) {
    size_t n = all ? x->run.len : utf8_whole_prefix(x->run.data ? x->run.data : "", x->run.len);
    if (n) {
        buf text = {0};
        if (!buf_append_utf8(&text, x->run.data, n))
            s->failed = true;
        else
            feed(s, i + 1, text.data, text.len, false);
        buf_fini(&text);
        memmove(x->run.data, x->run.data + n, x->run.len - n);
        x->run.len -= n;
    }
}

static void byte_level(tok_stream *s, size_t i, stage_state *x, const char *p, size_t n) {
    size_t from = x->run.len;
    for (size_t k = 0; k < n;) {
        uint32_t cp = 0xFFFD;
        int len = utf8_decode(p + k, n - k, &cp);
        int b = len ? tok_char_byte(cp) : -1;
        if (b < 0) { /* not bytes: the token stands as it is */
            x->run.len = from;
            collect(s, &x->run, p, n);
            break;
        }
        char c = (char)b;
        if (!collect(s, &x->run, &c, 1)) return;
        k += (size_t)len;
    }
    pass_bytes(s, i, x, false);
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    c |= 32;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte that <0xNN> names, or -1. Like Rust's from_str_radix, a plus sign may stand before one digit. */
static int byte_token(const char *p, size_t n) {
    if (n != 6 || memcmp(p, "<0x", 3) != 0 || p[5] != '>') return -1;
    int hi = p[3] == '+' ? 0 : hex_digit(p[3]), lo = hex_digit(p[4]);
    return hi < 0 || lo < 0 ? -1 : hi * 16 + lo;
}

/* Ends a run of byte tokens: one token if they are UTF-8, else a U+FFFD for each. */
static void end_byte_run(tok_stream *s, size_t i, stage_state *x) {
    if (!x->run.len) return;
    size_t ok = 0;
    while (ok < x->run.len) {
        uint32_t cp;
        int k = utf8_decode(x->run.data + ok, x->run.len - ok, &cp);
        if (!k) break;
        ok += (size_t)k;
    }
    if (ok == x->run.len) {
        feed(s, i + 1, x->run.data, x->run.len, true);
    } else {
        for (size_t k = 0; k < x->run.len; k++) feed(s, i + 1, "\xEF\xBF\xBD", 3, true);
    }
    buf_clear(&x->run);
}

/* Cuts up to `start` characters from the front and `stop` from the back of a token. */
static void strip(tok_stream *s, size_t i, const stage *g, stage_state *x, const char *p, size_t n,
                  bool end) {
    for (size_t k = 0; k < n;) {
        uint32_t cp;
        int len = utf8_decode(p + k, n - k, &cp);
        if (len < 1) len = 1;
        bool same = (size_t)len == g->text_n && memcmp(p + k, g->text, g->text_n) == 0;
        if (same && x->stripped < g->start) {
            x->stripped++;
        } else {
            x->stripped = g->start; /* the front is over */
            if (same && g->stop) {
                x->held++;
                while (x->held > g->stop) {
                    feed(s, i + 1, g->text, g->text_n, false);
                    x->held--;
                }
            } else {
                for (; x->held; x->held--) feed(s, i + 1, g->text, g->text_n, false);
                size_t e = k + (size_t)len; /* pass on a stretch at once */
                while (e < n && !(n - e >= g->text_n && memcmp(p + e, g->text, g->text_n) == 0 && g->stop))
                    e++;
                feed(s, i + 1, p + k, e - k, false);
                k = e;
                continue;
            }
        }
        k += (size_t)len;
    }
    if (end) {
        x->stripped = x->held = 0;
        feed(s, i + 1, "", 0, true);
    }
}

static void replace_rx(tok_stream *s, size_t i, const stage *g, const char *p, size_t n) {
    status st = {0};
    if (!rx_find(g->pattern, &s->rx, p, n, &st)) { /* a pattern that gives up leaves the token as it is */
        if (st.code == ST_NO_MEMORY) s->failed = true;
        feed(s, i + 1, p, n, true);
        return;
    }
    size_t at = 0;
    buf out = {0};
    for (size_t k = 0; k < s->rx.n; k++) {
        rx_match m = s->rx.v[k];
        if (m.begin > at) buf_append(&out, p + at, m.begin - at);
        buf_append(&out, g->text, g->text_n);
        if (m.end > at) at = m.end;
    }
    if (n > at) buf_append(&out, p + at, n - at);
    if (out.failed)
        s->failed = true;
    else
        feed(s, i + 1, out.data ? out.data : "", out.len, true);
    buf_fini(&out);
}

/* Plain text is replaced as it comes; an end that may be its beginning is held back. */
static void replace_literal(tok_stream *s, size_t i, const stage *g, stage_state *x, const char *p, size_t n,
                            bool end) {
    bool held = x->token.len > 0;
    if (held) {
        if (!collect(s, &x->token, p, n)) return;
        p = x->token.data;
        n = x->token.len;
    }
    size_t at = 0, keep = 0; /* keep: the longest end of p that begins the literal */
    const char *hit;
    while (n - at >= g->literal_n && (hit = memmem(p + at, n - at, g->literal, g->literal_n))) {
        size_t k = (size_t)(hit - p);
        if (k > at) feed(s, i + 1, p + at, k - at, false);
        at = k + g->literal_n;
        feed(s, i + 1, g->text, g->text_n, end && at == n);
        if (end && at == n) {
            buf_clear(&x->token);
            return;
        }
    }
    for (size_t k = g->literal_n - 1; k > 0 && !end; k--)
        if (k <= n - at && memcmp(p + n - k, g->literal, k) == 0) {
            keep = k;
            break;
        }
    if (end || n - keep > at) feed(s, i + 1, p + at, n - keep - at, end);
    if (held) {
        memmove(x->token.data, x->token.data + n - keep, keep);
        x->token.len = keep;
    } else if (keep) {
        collect(s, &x->token, p + n - keep, keep);
    }
}

static void replace_all(buf *b, const char *what, size_t what_n, const char *with, bool *failed) {
    buf out = {0};
    const char *p = b->data ? b->data : "", *e = p + b->len, *hit;
    while (what_n && (hit = memmem(p, (size_t)(e - p), what, what_n))) {
        buf_append(&out, p, (size_t)(hit - p));
        buf_puts(&out, with);
        p = hit + what_n;
    }
    buf_append(&out, p, (size_t)(e - p));
    if (out.failed) *failed = true;
    buf_fini(b);
    *b = out;
}

static void wordpiece(tok_stream *s, size_t i, const stage *g, stage_state *x, const char *p, size_t n) {
    static const char *const clean[][2] = {
        {" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},   {" n't", "n't"},
        {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
    buf out = {0};
    if (x->index > 0) {
        if (n >= g->text_n && (!g->text_n || memcmp(p, g->text, g->text_n) == 0)) {
            p += g->text_n;
            n -= g->text_n;
        } else {
            buf_putc(&out, ' ');
        }
    }
    buf_append(&out, p, n);
    if (out.failed) s->failed = true;
    for (size_t k = 0; g->cleanup && k < ARRAY_LEN(clean); k++)
        replace_all(&out, clean[k][0], strlen(clean[k][0]), clean[k][1], &s->failed);
    if (!s->failed) feed(s, i + 1, out.data ? out.data : "", out.len, true);
    buf_fini(&out);
}

/* BPEDecoder: the suffix becomes a space, but nothing in the last token. */
static void bpe_token(tok_stream *s, size_t i, const stage *g, stage_state *x, bool last) {
    replace_all(&x->run, g->text, g->text_n, last ? "" : " ", &s->failed);
    feed(s, i + 1, x->run.data ? x->run.data : "", x->run.len, true);
    buf_clear(&x->run);
}

static void metaspace(tok_stream *s, size_t i, const stage *g, stage_state *x, const char *p, size_t n) {
    const char *hit, *e = p + n;
    while ((hit = memmem(p, (size_t)(e - p), g->text, g->text_n))) {
        if (hit > p) feed(s, i + 1, p, (size_t)(hit - p), false);
        if (x->index > 0 || g->keep_first) feed(s, i + 1, " ", 1, false);
        p = hit + g->text_n;
    }
    if (e > p) feed(s, i + 1, p, (size_t)(e - p), false);
}

/* The stages that look at whole tokens. */
static void whole_token(tok_stream *s, size_t i, const stage *g, stage_state *x, const char *p, size_t n) {
    switch (g->kind) {
    case DEC_BYTE_LEVEL: byte_level(s, i, x, p, n); break;
    case DEC_BYTE_FALLBACK: {
        int b = byte_token(p, n);
        if (b >= 0) {
            char c = (char)b;
            collect(s, &x->run, &c, 1);
        } else {
            end_byte_run(s, i, x);
            feed(s, i + 1, p, n, true);
        }
        break;
    }
    case DEC_REPLACE: replace_rx(s, i, g, p, n); break;
    case DEC_WORDPIECE: wordpiece(s, i, g, x, p, n); break;
    case DEC_BPE:
        if (x->index > 0) bpe_token(s, i, g, x, false); /* the one before was not the last */
        collect(s, &x->run, p, n);
        break;
    default: break;
    }
    x->index++;
}

/* Gives stage i a fragment of a token; end: the token ends with it. */
static void feed(tok_stream *s, size_t i, const char *p, size_t n, bool end) {
    const decoder *d = chain_of(s->t);
    if (s->failed) return;
    if (i == d->n) {
        collect(s, s->out, p, n);
        return;
    }
    const stage *g = &d->v[i];
    stage_state *x = &s->v[i];
    if (g->kind == DEC_FUSE) {
        if (n) feed(s, i + 1, p, n, false);
    } else if (g->kind == DEC_STRIP) {
        strip(s, i, g, x, p, n, end);
    } else if (g->kind == DEC_METASPACE) {
        metaspace(s, i, g, x, p, n);
        if (end) {
            x->index++;
            feed(s, i + 1, "", 0, true);
        }
    } else if (g->kind == DEC_JOIN) {
        if (!x->inside && x->index > 0) feed(s, i + 1, " ", 1, false);
        x->inside = !end;
        x->index += end;
        feed(s, i + 1, p, n, end);
    } else if (g->kind == DEC_REPLACE && g->literal_n) {
        replace_literal(s, i, g, x, p, n, end);
    } else if (end && !x->token.len) {
        whole_token(s, i, g, x, p, n);
    } else if (collect(s, &x->token, p, n) && end) {
        whole_token(s, i, g, x, x->token.data, x->token.len);
        buf_clear(&x->token);
    }
}

static void finish(tok_stream *s) {
    const decoder *d = chain_of(s->t);
    for (size_t i = 0; i < d->n; i++) {
        stage_state *x = &s->v[i];
        switch (d->v[i].kind) {
        case DEC_BYTE_LEVEL:
            pass_bytes(s, i, x, true);
            feed(s, i + 1, "", 0, true); /* all tokens have become one */
            break;
        case DEC_BYTE_FALLBACK: end_byte_run(s, i, x); break;
        case DEC_FUSE: feed(s, i + 1, "", 0, true); break;
        case DEC_BPE:
            if (x->index > 0) bpe_token(s, i, &d->v[i], x, true);
            break;
        default: break;
        }
    }
}

/* ---- streams ---- */

tok_stream *tok_stream_new(const tok *t, bool skip_special) {
    tok_stream *s = mem_calloc(1, sizeof *s);
    if (!s) return NULL;
    s->t = t;
    s->skip_special = skip_special;
    return s;
}

void tok_stream_free(tok_stream *s) {
    if (!s) return;
    for (size_t i = 0; i < STAGES_MAX; i++) {
        buf_fini(&s->v[i].token);
        buf_fini(&s->v[i].run);
    }
    rx_work_fini(&s->rx);
    mem_free(s);
}

bool tok_stream_push(tok_stream *s, int32_t id, buf *out) {
    size_t n;
    const char *p = tok_emitted(s->t, id, &n);
    if (!p || s->failed) return !s->failed;
    /* The library compares the string, not the id. */
    if (s->skip_special) {
        int32_t k = vocab_find(&s->t->added.contents, p, n);
        if (k >= 0 && s->t->added.v[k].special) return true;
    }
    s->out = out;
    feed(s, 0, p, n, true);
    s->out = NULL;
    return !s->failed;
}

bool tok_stream_end(tok_stream *s, buf *out) {
    if (s->failed) return false;
    s->out = out;
    finish(s);
    s->out = NULL;
    return !s->failed;
}

bool tok_decode(const tok *t, const int32_t *ids, size_t n, bool skip_special, buf *out, status *st) {
    tok_stream *s = tok_stream_new(t, skip_special);
    bool ok = s != NULL;
    for (size_t i = 0; i < n && ok; i++) ok = tok_stream_push(s, ids[i], out);
    ok = ok && tok_stream_end(s, out);
    tok_stream_free(s);
    return ok || status_set(st, ST_NO_MEMORY, "no memory for a text of %zu tokens", n);
}

bool tok_id_bytes(const tok *t, int32_t id, buf *out) {
    size_t n;
    const char *p = tok_emitted(t, id, &n);
    if (!p) return true;
    const decoder *d = chain_of(t);
    buf b = {0};
    bool failed = !buf_append(&b, p, n);
    for (size_t i = 0; i < d->n && !failed; i++) {
        const stage *g = &d->v[i];
        int byte;
        switch (g->kind) {
        case DEC_BYTE_LEVEL: {
            buf raw = {0};
            for (size_t k = 0; k < b.len;) {
                uint32_t cp = 0;
                int len = utf8_decode(b.data + k, b.len - k, &cp), c = len ? tok_char_byte(cp) : -1;
                if (c < 0) {
                    buf_clear(&raw);
                    buf_append(&raw, b.data, b.len);
                    break;
                }
                buf_putc(&raw, (char)c);
                k += (size_t)len;
            }
            failed = raw.failed;
            buf_fini(&b);
            b = raw;
            break;
        }
        case DEC_BYTE_FALLBACK:
            byte = byte_token(b.data ? b.data : "", b.len);
            if (byte >= 0) {
                buf_clear(&b);
                buf_putc(&b, (char)byte);
            }
            break;
        case DEC_REPLACE:
            if (g->literal_n) replace_all(&b, g->literal, g->literal_n, g->text, &failed);
            break;
        case DEC_METASPACE:
        case DEC_BPE: replace_all(&b, g->text, g->text_n, " ", &failed); break;
        case DEC_WORDPIECE:
            if (g->text_n && b.len >= g->text_n && memcmp(b.data, g->text, g->text_n) == 0) {
                memmove(b.data, b.data + g->text_n, b.len - g->text_n);
                b.len -= g->text_n;
            }
            break;
        default: break;
        }
    }
    bool ok = !failed && !b.failed && buf_append(out, b.data ? b.data : "", b.len);
    buf_fini(&b);
    return ok;
}

/* ---- loading ---- */

static bool no_memory(status *st) {
    return status_set(st, ST_NO_MEMORY, "no memory for a decoder");
}

static bool load_text(stage *g, const json_t *j, const char *key, const char *absent, const char *what,
                      status *st) {
    size_t n;
    const char *s = absent;
    if (absent && !json_object_get(j, key))
        n = strlen(absent);
    else if (!(s = jfield_string(j, key, &n, what, st)))
        return false;
    g->text = mem_strndup(s, n);
    g->text_n = n;
    return g->text || no_memory(st);
}

static bool load_char(stage *g, const json_t *j, const char *key, const char *what, status *st) {
    uint32_t cp;
    if (!load_text(g, j, key, NULL, what, st)) return false;
    if (g->text_n == 0 || utf8_decode(g->text, g->text_n, &cp) != (int)g->text_n)
        return status_set(st, ST_INVALID, "%s: %s: expected one character, found '%.40s'", what, key,
                          g->text);
    return true;
}

static bool load_count(const json_t *j, const char *key, size_t *out, status *st) {
    const json_t *v = json_object_get(j, key);
    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return status_set(st, ST_INVALID, "decoder Strip: %s: expected a count, found %s", key, jkind(v));
    *out = (size_t)json_integer_value(v);
    return true;
}

static bool load(decoder *d, const json_t *j, int depth, status *st) {
    static const struct {
        const char *name;
        stage_kind kind;
    } kinds[] = {{"ByteLevel", DEC_BYTE_LEVEL},
                 {"ByteFallback", DEC_BYTE_FALLBACK},
                 {"Fuse", DEC_FUSE},
                 {"Strip", DEC_STRIP},
                 {"Replace", DEC_REPLACE},
                 {"Metaspace", DEC_METASPACE},
                 {"BPEDecoder", DEC_BPE},
                 {"WordPiece", DEC_WORDPIECE}};
    const char *type = jfield_string(j, "type", NULL, "decoder", st);
    if (!type) return false;
    if (depth > DEPTH_MAX) return status_set(st, ST_UNSUPPORTED, "decoder: sequences nested this deep");
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list = json_object_get(j, "decoders");
        if (!json_is_array(list))
            return status_set(st, ST_INVALID, "decoder: decoders: expected an array, found %s", jkind(list));
        for (size_t k = 0; k < json_array_size(list); k++)
            if (!load(d, json_array_get(list, k), depth + 1, st)) return false;
        return true;
    }
    size_t i = 0;
    while (i < ARRAY_LEN(kinds) && strcmp(kinds[i].name, type) != 0) i++;
    if (i == ARRAY_LEN(kinds)) return status_set(st, ST_UNSUPPORTED, "decoder '%.60s' is not built", type);
    if (d->n == STAGES_MAX) return status_set(st, ST_UNSUPPORTED, "decoder: over %d stages", STAGES_MAX);
    stage *g = &d->v[d->n++];
    g->kind = kinds[i].kind;
    switch (g->kind) {
    case DEC_STRIP:
        return load_char(g, j, "content", "decoder Strip", st) && load_count(j, "start", &g->start, st) &&
               load_count(j, "stop", &g->stop, st);
    case DEC_REPLACE: {
        const json_t *lit = json_object_get(json_object_get(j, "pattern"), "String");
        if (json_is_string(lit) && json_string_length(lit)) {
            g->literal_n = json_string_length(lit);
            g->literal = mem_strndup(json_string_value(lit), g->literal_n);
            if (!g->literal) return no_memory(st);
        } else if (!(g->pattern = jfield_pattern(j, "decoder Replace", st))) {
            return false;
        }
        return load_text(g, j, "content", NULL, "decoder Replace", st);
    }
    case DEC_METASPACE: {
        const json_t *scheme = json_object_get(j, "prepend_scheme"),
                     *prefix = json_object_get(j, "add_prefix_space");
        g->keep_first = (json_is_string(scheme) && strcmp(json_string_value(scheme), "never") == 0) ||
                        json_is_false(prefix);
        return load_char(g, j, "replacement", "decoder Metaspace", st);
    }
    case DEC_BPE: return load_text(g, j, "suffix", "</w>", "decoder BPEDecoder", st);
    case DEC_WORDPIECE:
        return load_text(g, j, "prefix", "##", "decoder WordPiece", st) &&
               jfield_bool(j, "cleanup", true, &g->cleanup, "decoder WordPiece", st);
    default: return true;
    }
}

decoder *decoder_load(const json_t *j, status *st) {
    if (!j || json_is_null(j)) return NULL;
    decoder *d = mem_calloc(1, sizeof *d);
    if (!d) {
        no_memory(st);
        return NULL;
    }
    if (load(d, j, 0, st)) return d;
    decoder_free(d);
    return NULL;
}

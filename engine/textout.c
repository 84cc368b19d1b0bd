/* textout.c - see textout.h. One thread at a time; a textout owns its buffers, its automaton and its
 * tok_stream. */
#include "engine/textout.h"

#include <stdlib.h>
#include <string.h>

/* ---- the automaton of the stop strings ---- */

typedef struct stop_string {
    const char *s;
    size_t n;
} stop_string;

typedef struct stop_range { /* the sorted strings that begin with a node's prefix */
    uint32_t lo, hi;
} stop_range;

static int by_bytes(const void *a, const void *b) {
    const stop_string *x = a, *y = b;
    int c = memcmp(x->s, y->s, x->n < y->n ? x->n : y->n);
    return c ? c : (x->n > y->n) - (x->n < y->n);
}

/* The child of node v by byte b, or 0 (the root is nobody's child). */
static uint32_t child_of(const textout_node *nodes, uint32_t v, uint8_t b) {
    uint32_t lo = nodes[v].child, hi = lo + nodes[v].n_children;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (nodes[mid].byte == b) return mid;
        if (nodes[mid].byte < b)
            lo = mid + 1;
        else
            hi = mid;
    }
    return 0;
}

static uint32_t step(const textout_node *nodes, uint32_t v, uint8_t b) {
    for (;;) {
        uint32_t c = child_of(nodes, v, b);
        if (c || v == 0) return c;
        v = nodes[v].fail;
    }
}

/* Breadth first over the sorted strings: a node's children are the groups of its range by their next byte, so
 * they lie together, and every shorter prefix is complete before a longer one asks for its fail link. */
static uint32_t build(textout_node *nodes, stop_range *ranges, const stop_string *stops, uint32_t n_stops) {
    uint32_t n = 1;
    nodes[0] = (textout_node){0};
    ranges[0] = (stop_range){0, n_stops};
    for (uint32_t v = 0; v < n; v++) {
        textout_node *node = &nodes[v];
        uint32_t i = ranges[v].lo, hi = ranges[v].hi, d = node->depth;
        node->match = nodes[node->fail].match;
        for (; i < hi && stops[i].n == d; i++) node->match = d;
        node->child = n;
        while (i < hi) {
            uint8_t b = (uint8_t)stops[i].s[d];
            uint32_t from = i;
            while (i < hi && (uint8_t)stops[i].s[d] == b) i++;
            nodes[n] = (textout_node){.fail = v ? step(nodes, node->fail, b) : 0, .depth = d + 1, .byte = b};
            ranges[n++] = (stop_range){from, i};
            node->n_children++;
        }
    }
    return n;
}

static bool bad_stop(status *st, status_code code, const char *why) {
    status_set(st, code, "stop: %s", why);
    return status_param(st, "stop");
}

static bool init_stops(textout *o, const engine_params *p, status *st) {
    stop_string *stops = mem_alloc((size_t)p->n_stop * sizeof *stops);
    stop_range *ranges = NULL;
    bool ok = false;
    size_t total = 0;
    if (!stops) goto no_memory;
    for (int i = 0; i < p->n_stop; i++) {
        stops[i] = (stop_string){p->stop[i], strlen(p->stop[i])};
        total += stops[i].n;
        if (stops[i].n == 0) {
            bad_stop(st, ST_INVALID, "a stop string must not be empty");
            goto out;
        }
        if (!utf8_valid(stops[i].s, stops[i].n)) {
            bad_stop(st, ST_INVALID, "a stop string must be valid UTF-8");
            goto out;
        }
    }
    if (total > TEXTOUT_MAX_STOP_BYTES) {
        status_set(st, ST_TOO_LARGE, "The stop strings take %zu bytes together; at most %d are allowed.",
                   total, TEXTOUT_MAX_STOP_BYTES);
        status_param(st, "stop");
        goto out;
    }
    qsort(stops, (size_t)p->n_stop, sizeof *stops, by_bytes);
    ranges = mem_alloc((total + 1) * sizeof *ranges);
    o->nodes = mem_alloc((total + 1) * sizeof *o->nodes);
    if (!ranges || !o->nodes) goto no_memory;
    o->n_nodes = build(o->nodes, ranges, stops, (uint32_t)p->n_stop);
    textout_node *fitted = mem_realloc(o->nodes, o->n_nodes * sizeof *fitted);
    if (fitted) o->nodes = fitted;
    ok = true;
    goto out;
no_memory:
    status_set(st, ST_NO_MEMORY, "no memory for the stop strings");
out:
    mem_free(stops);
    mem_free(ranges);
    return ok;
}

/* ---- the answer's text ---- */

bool textout_init(textout *o, const tok *t, const engine_params *p, status *st) {
    *o = (textout){.tok = t, .min_tokens = p->min_tokens};
    if (p->n_stop > 0 && !init_stops(o, p, st)) {
        textout_fini(o);
        return false;
    }
    o->stream = tok_stream_new(t, true);
    if (!o->stream) {
        textout_fini(o);
        return status_set(st, ST_NO_MEMORY, "no memory for the answer's text");
    }
    return true;
}

void textout_fini(textout *o) {
    tok_stream_free(o->stream);
    mem_free(o->nodes);
    buf_fini(&o->held);
    buf_fini(&o->piece);
    buf_fini(&o->bytes);
    *o = (textout){0};
}

/* Walks the automaton over held[from..) and moves what is decided to the piece. */
static bool decide(textout *o, size_t from) {
    size_t sure = o->held.len;
    if (o->nodes) {
        for (size_t i = from; i < o->held.len; i++) {
            o->state = step(o->nodes, o->state, (uint8_t)o->held.data[i]);
            uint32_t match = o->nodes[o->state].match;
            if (match == 0 || o->n_tokens <= o->min_tokens) continue;
            o->stopped = true;
            bool ok = buf_append(&o->piece, o->held.data, i + 1 - match);
            buf_clear(&o->held);
            return ok;
        }
        sure -= o->nodes[o->state].depth;
    }
    if (sure == 0) return true;
    if (!buf_append(&o->piece, o->held.data, sure)) return false;
    memmove(o->held.data, o->held.data + sure, o->held.len - sure);
    o->held.len -= sure;
    return true;
}

static void fill_piece(const textout *o, int n_tokens, textout_piece *out) {
    *out = (textout_piece){.text = o->piece.data ? o->piece.data : "",
                           .n_text = o->piece.len,
                           .tokens = n_tokens ? &o->token : NULL,
                           .n_tokens = n_tokens,
                           .stopped = o->stopped};
}

/* The bytes of id go to o->bytes; returns how many. A special token has none: the text leaves it out. */
static bool entry_bytes(textout *o, int32_t id, size_t *n) {
    size_t before = o->bytes.len;
    bool ok = tok_is_special(o->tok, id) || tok_id_bytes(o->tok, id, &o->bytes);
    *n = o->bytes.len - before;
    return ok;
}

static const char *special_name(const textout *o, int32_t id) {
    return tok_is_special(o->tok, id) ? tok_id_string(o->tok, id) : NULL;
}

static bool fill_entry(textout *o, const sample_result *r) {
    engine_token *e = &o->token;
    e->id = r->id;
    e->logprob = r->logprob;
    e->special = special_name(o, r->id);
    e->n_top = r->n_top;
    if (!entry_bytes(o, r->id, &e->n_bytes)) return false;
    for (int i = 0; i < r->n_top; i++) {
        e->top[i].id = r->top_id[i];
        e->top[i].logprob = r->top_logprob[i];
        e->top[i].special = special_name(o, r->top_id[i]);
        if (!entry_bytes(o, r->top_id[i], &e->top[i].n_bytes)) return false;
    }
    /* Only now does the buffer stay where it is. */
    const char *at = o->bytes.data ? o->bytes.data : "";
    e->bytes = at;
    at += e->n_bytes;
    for (int i = 0; i < r->n_top; i++) {
        e->top[i].bytes = at;
        at += e->top[i].n_bytes;
    }
    return true;
}

bool textout_push(textout *o, const sample_result *r, bool is_stop_token, textout_piece *out) {
    CHECK(!o->stopped && r->n_top <= (int)ARRAY_LEN(o->token.top));
    buf_clear(&o->piece);
    buf_clear(&o->bytes);
    o->n_tokens++;
    if (!fill_entry(o, r)) return false;
    size_t from = o->held.len;
    if (!is_stop_token && (!tok_stream_push(o->stream, r->id, &o->held) || !decide(o, from))) return false;
    fill_piece(o, 1, out);
    return true;
}

bool textout_end(textout *o, textout_piece *out) {
    buf_clear(&o->piece);
    size_t from = o->held.len;
    if (!o->stopped) {
        if (!tok_stream_end(o->stream, &o->held) || !decide(o, from)) return false;
        if (!o->stopped && o->held.len > 0) { /* a prefix that nothing will complete */
            if (!buf_append(&o->piece, o->held.data, o->held.len)) return false;
            buf_clear(&o->held);
        }
    }
    fill_piece(o, 0, out);
    return true;
}

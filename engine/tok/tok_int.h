/* tok_int.h - what the files of engine/tok share. Everything a tok holds is read-only after tok_load; what a
 * call needs while it runs lives in structs of its own (tok_text, bpe_work, rx_work). */
#ifndef VLMD_ENGINE_TOK_INT_H
#define VLMD_ENGINE_TOK_INT_H

#include <jansson.h>

#include "engine/tok/rx.h"
#include "engine/tok/tok.h"
#include "engine/tok/uset.h"

/* ---- vocab.c: strings to ids and back ---- */

typedef struct vocab_entry {
    uint32_t at, len; /* in pool */
    int32_t id;
    uint32_t hash;
} vocab_entry;
typedef struct vocab {
    char *pool; /* the strings, each followed by a NUL */
    size_t pool_len, pool_cap;
    vocab_entry *v;
    size_t n, cap;
    uint32_t *slots; /* open addressing: index + 1 into v, 0 empty */
    size_t mask;
    int32_t *by_id; /* index into v, or -1 */
    size_t n_id;
} vocab;
bool vocab_init(vocab *w, size_t n, size_t bytes,
                status *st); /* room for n strings of `bytes` together; grows */
void vocab_fini(vocab *w);
/* A string that is there already gets the new id. */
bool vocab_put(vocab *w, const char *s, size_t len, int32_t id, status *st);
bool vocab_index_ids(vocab *w, status *st);                    /* after the last put: fills by_id */
int32_t vocab_find(const vocab *w, const char *s, size_t len); /* -1: none */
const char *vocab_string(const vocab *w, int32_t id, size_t *len);
uint32_t tok_hash(const char *s, size_t len);
/* {"token": id, ...}, the way most models have it. Ends with vocab_index_ids. */
bool vocab_from_json(vocab *w, const json_t *j, status *st);

/* ---- trie.c: strings by their bytes, for matches at a place of a text ---- */

typedef struct trie_edge {
    uint32_t key_node; /* node + 1; 0: empty slot */
    uint32_t child;
    uint8_t byte;
} trie_edge;
typedef struct trie { /* one hash table of (node, byte); node 0 is the root */
    trie_edge *edges;
    size_t mask, nodes;
    int32_t *ends; /* what trie_put's caller wrote for the string that ends at a node, or -1 */
} trie;
bool trie_init(trie *t, size_t bytes); /* room for strings of `bytes` together; false: no memory */
void trie_fini(trie *t);
int32_t *trie_put(trie *t, const char *s, size_t n);             /* where the value goes; -1 when new */
uint32_t trie_child(const trie *t, uint32_t node, uint8_t byte); /* 0: none */

/* ---- a text on its way to ids ---- */

/* Where bytes of the original text a byte comes from, as the library's alignments have it. */
typedef struct tok_align {
    uint32_t begin, end;
} tok_align;
/* Bytes, with their origins where `track` asks for them (kept parallel to s.data). */
typedef struct tok_str {
    buf s;
    tok_align *al;
    size_t al_cap;
    bool track;
} tok_str;
bool tok_str_add(tok_str *t, const char *p, size_t n,
                 const tok_align *al); /* al: one a byte (unused untracked) */
bool tok_str_add_one(tok_str *t, const char *p, size_t n, tok_align al); /* all n bytes from one place */
void tok_str_clear(tok_str *t);
void tok_str_fini(tok_str *t);

typedef struct tok_piece { /* bytes [begin, end) of the text; id >= 0: an added token, else text still to do
                            */
    uint32_t begin, end;
    int32_t id;
    uint32_t
        shift; /* where the piece begins in the original text (library: original_shift); tracked texts only */
} tok_piece;
typedef struct tok_text {
    tok_str t, spare;         /* the text, and room for the next one */
    tok_piece *v, *v_spare;   /* its pieces in order; none is empty */
    size_t n, cap, spare_cap; /* spare_cap: of v_spare */
    rx_work rx;
} tok_text;
void tok_text_fini(tok_text *x);
/* A new list of pieces (and, when new_text, a new text) is built beside the old one, then takes its place. */
typedef struct tok_build {
    tok_text *x;
    size_t n;
    bool failed;
} tok_build;
tok_build tok_build_begin(tok_text *x);          /* with a new text, in x->spare */
void tok_build_piece(tok_build *b, tok_piece p); /* drops empty ones */
bool tok_build_done(tok_build *b, bool new_text, status *st);
/* The piece [begin, end) of x's text (or of its spare text), whose enclosing piece began at shift. */
tok_piece tok_slice(const tok_str *t, uint32_t begin, uint32_t end);

/* Flags of a code point, as Rust's side of the library sees it: cpmap_flags of these sets in this order. */
enum {
    CP_WORD = 1,     /* \w of the regex crate */
    CP_SPACE = 2,    /* char::is_whitespace */
    CP_NUMERIC = 4,  /* char::is_numeric */
    CP_PUNCT = 8,    /* is_punc */
    CP_CONTROL = 16, /* what BertNormalizer removes */
    CP_MN = 32,      /* nonspacing marks of BertNormalizer */
    CP_ACCENT = 64,  /* what StripAccents removes */
    CP_NORMAL = 128  /* known to the normal forms */
};

/* ---- norm.c ---- */

typedef struct norm norm;
norm *norm_load(const json_t *j, status *st); /* NULL for JSON null with st OK */
void norm_free(norm *m);
/* out := the normal form of in; both distinct, tmp is working memory. */
bool norm_apply(const norm *m, const cpmap *cps, tok_str *in_out, tok_str *tmp, rx_work *rx, status *st);

/* ---- charsmap.c: the normalizer that SentencePiece compiles ---- */

typedef struct charsmap charsmap;
charsmap *charsmap_load(const json_t *j, status *st);
void charsmap_free(charsmap *m);
void charsmap_apply(const charsmap *m, const tok_str *in, tok_str *out); /* no memory: out->s.failed */

/* ---- pretok.c ---- */

typedef struct pretok pretok;
pretok *pretok_load(const json_t *j, status *st);
void pretok_free(pretok *p);
bool pretok_needs_origin(const pretok *p); /* Metaspace with prepend_scheme "first" */
bool pretok_apply(const pretok *p, const cpmap *cps, tok_text *x, status *st);
extern const char tok_gpt2_pattern[];

/* Bytes as ByteLevel writes them. */
int tok_byte_char(unsigned char b, char out[2]); /* the length, 1 or 2 */
int tok_char_byte(uint32_t cp);                  /* -1: not one of the 256 */

/* ---- added.c ---- */

typedef struct added_token {
    char *content, *pattern; /* pattern: content, or its normal form when normalized */
    size_t content_n, pattern_n;
    int32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
    bool guarded; /* no user's text matches it, whatever special says */
} added_token;
typedef struct added_trie added_trie;
typedef struct added {
    added_token *v;
    size_t n;
    added_trie *raw, *normal; /* NULL: no such tokens */
    bool any_special_normalized;
    vocab contents; /* content to index into v */
    int32_t *by_id; /* index into v, or -1 */
    size_t n_id;
} added;
bool added_load(added *a, const json_t *j, const vocab *model, const norm *nm, const cpmap *cps, status *st);
void added_fini(added *a);
const added_token *added_by_id(const added *a, int32_t id);
bool added_guard(added *a, int32_t id); /* false: no added token has this id */
/* Cuts the tokens of a trie out of all text pieces. user spans are in bytes of the original text. */
bool added_split(const added *a, const added_trie *t, const cpmap *cps, tok_text *x, const tok_span *user,
                 size_t n_user, status *st);

/* ---- the models: bpe.c, wordpiece.c, unigram.c ---- */

typedef struct tok_model tok_model;
typedef struct tok_model_ops {
    void (*free)(tok_model *m);
    void *(*work_new)(const tok_model *m, size_t text_n); /* working memory of one encode, NULL: no memory */
    void (*work_free)(void *work);
    /* Appends the ids of a word. user: no string of s is taken for a barred token. */
    bool (*encode)(const tok_model *m, void *work, const char *s, size_t n, bool user, tok_ids *out,
                   status *st);
} tok_model_ops;
struct tok_model { /* first member of each model's struct */
    const tok_model_ops *ops;
    vocab vocab;
    /* By id below vocab.n_id: a special or guarded token. Added tokens are cut out of a text before the model sees it,
     * but where a user's must stay text, the model may still have the same string in its vocabulary. */
    bool *barred;
};
static inline bool tok_model_bars(const tok_model *m, bool user, int32_t id) {
    return user && m->barred[id];
}
tok_model *bpe_load(const json_t *j, status *st);
tok_model *wordpiece_load(const json_t *j, status *st);
tok_model *wordlevel_load(const json_t *j, status *st); /* a word is a token or unknown; in wordpiece.c */
tok_model *unigram_load(const json_t *j, status *st);

/* ---- post.c ---- */

typedef struct post post;
post *post_load(const json_t *j, status *st);
void post_free(post *p);
bool post_apply(const post *p, bool add_special, tok_ids *out, size_t from, status *st); /* out[from..] */
size_t post_added(const post *p); /* the ids that it adds */

/* ---- decode.c ---- */

typedef struct decoder decoder;
decoder *decoder_load(const json_t *j, status *st);
void decoder_free(decoder *d);
struct tok {
    tok_model *model;
    added added;
    norm *norm;
    pretok *pretok;
    post *post;
    decoder *decoder;
    cpmap cps;
    int32_t pad_id; /* of the file's padding, or -1 */
};
/* The string that decoding starts from, or NULL. */
const char *tok_emitted(const tok *t, int32_t id, size_t *len);

/* ---- JSON fields, with messages ---- */

/* NULL or the wrong kind gives ST_INVALID "what: expected ..., found ...". */
const char *jfield_string(const json_t *obj, const char *key, size_t *len, const char *what, status *st);
bool jfield_bool(const json_t *obj, const char *key, bool absent, bool *out, const char *what, status *st);
const char *jkind(const json_t *j); /* "a string", "null", ... */
/* "pattern": {"String": ...} or {"Regex": ...} */
rx *jfield_pattern(const json_t *obj, const char *what, status *st);

#endif

/* seq.h - one answer on its way: prompt, pictures, pages, and what turns its ids into events.
 *
 * A job of several choices is several of these. The first one leads: it alone passes through workers and inbox and
 * computes the prompt; until its first token it owns the others (`forks`), then they part and are sequences of their
 * own under the job's number, which take the prompt's pages and pictures from it.
 *
 * Threads: made where it is submitted, then handed on: picture worker, inbox, engine's thread; one owner at a
 * time. Only `cancelled` and the links of the live list are touched by others (the latter under the inbox's
 * lock). Tested by tests/engine/sched. */
#ifndef VLMD_ENGINE_SEQ_H
#define VLMD_ENGINE_SEQ_H

#include <limits.h>
#include <stdatomic.h>

#include "engine/kv.h"
#include "engine/piccache.h"
#include "engine/prompt.h"
#include "engine/sampler.h"
#include "engine/textout.h"

struct seq;
typedef struct seq_list { /* first in, first out, linked by next */
    struct seq *head, *tail;
} seq_list;

typedef struct seq_image {
    picture *pic; /* a reference; NULL: not decoded */
    /* engine/seen.h, once it is encoded: rows of keys and values, and how many of these hold something of it */
    int all, hold;
} seq_image;

typedef struct seq {
    uint64_t job;
    int choice;     /* 0: the one that leads */
    seq_list forks; /* the other choices, in order, until they part */
    int n_choices;  /* that end with this one: 1, and the forks */
    engine_sink sink;
    void *user;
    embed *embed;          /* of a job that wants vectors; NULL: one that wants an answer */
    prompt *prompt;        /* its ids grow: the answer's follow the prompt's */
    int n_prompt, max_len; /* tokens; max_len: prompt and answer together at most */
    int min_tokens;
    both_ways both_ways; /* the model's */
    sampler sampler;
    textout textout;
    bool input_done;                 /* ENGINE_INPUT_DONE was sent */
    seq_image *images;               /* [prompt->n_images] */
    int n_taken;                     /* those in front have their pic: worker's, then engine's */
    int64_t pixels;                  /* of its pictures, while the inbox counts them */
    picture_claim claim;             /* on the memory for pictures that it has not taken yet */
    bool queued;                     /* engine/admission.h counts it as waiting */
    bool awaits_room;                /* its pictures are decoded once what gave way to them is gone */
    int priority;                    /* lower is earlier */
    uint64_t order;                  /* of arrival, within a priority */
    double t_submit, t_run, t_first; /* time_now_s; 0: not yet. Of the first time, preempted or not */
    status st;                       /* why it cannot go on, when it cannot */
    atomic_bool cancelled;
    struct seq *next;                  /* of the list that it stands in */
    struct seq *live_prev, *live_next; /* the inbox's */

    /* the engine's thread from here */
    int n_done; /* tokens whose keys and values are in the cache, or will be once the steps under way are over */
    int n_ahead;     /* tokens chosen in those steps, which are not known here yet */
    int n_steps;     /* of them that hold rows of it */
    int last_result; /* where the last of them leaves the token that it chose */
    bool over;       /* it has ended; its pages and itself go with the last of them */
    int32_t *pages;  /* [kv_pages_of(max_len)], n_pages are held */
    int n_pages;
    int saved;  /* rows of its shares that a span was too long for */
    bool apart; /* its pictures' rows are none of the prompt's: layers attend to them, or they are vectors */
    bool seen_ready;
    void *
        seen_rows; /* engine/seen.h: the copy of several pictures' keys and values, on the device; NULL: none */
    picture_claim seen_claim; /* the room for it */
    bool suspect;             /* was in a step that failed: runs alone until it is cleared */

    /* pages that others may have; engine/share.h */
    int share_max; /* tokens from the first on whose pages can be shared at all; 0: none */
    bool job_only; /* with the other choices of its job only */
    page_key root, *keys;
    int n_keys, cap_keys; /* keys [n_keys] of the first pages */
    int n_claimed;        /* pages in front that are its own to compute, as far as it has looked */
    int wait_row;         /* rows from here on are waited for; INT_MAX: none */
    int n_cached;         /* prompt tokens that were there when it came to them */
    bool preempted;
} seq;

void seq_list_push(seq_list *l, seq *s);
/* Where its priority and arrival put it. */
void seq_list_insert(seq_list *l, seq *s);
bool seq_before(const seq *a, const seq *b);
seq *seq_list_pop(seq_list *l); /* NULL when empty */
/* Moves the cancelled ones to `to`, order kept. */
void seq_list_take_cancelled(seq_list *l, seq_list *to);

/* The one that leads params->n choices. Takes the prompt (freed also on failure). params were checked. Errors: those of sampler_init and
 * textout_init; an id that the model does not know; ST_NO_MEMORY. */
seq *seq_new(prompt *p, const engine_params *params, const promptkit *kit, int max_model_len,
             engine_sink sink, void *user, status *st);
void seq_free(seq *s); /* and its forks; its pages are given back before */
/* What the other choices are from now on: in order, with pictures of their own count. inbox_part comes first. */
seq_list seq_part(seq *s);

static inline int seq_len(const seq *s) {
    return (int)s->prompt->ids.n;
}
/* Tokens that were read as the prompt, also those that only a picture's encode reads. */
static inline int seq_told(const seq *s) {
    return s->prompt->told.n ? (int)s->prompt->told.n : s->n_prompt;
}
/* Those on their way included. */
static inline int seq_len_ahead(const seq *s) {
    return seq_len(s) + s->n_ahead;
}
static inline int seq_answer_len(const seq *s) {
    return seq_len(s) - s->n_prompt;
}
/* One row is left, and it is of the answer. */
static inline bool seq_decodes(const seq *s) {
    return seq_len_ahead(s) > s->n_prompt && s->n_done + 1 == seq_len_ahead(s);
}
static inline bool seq_image_ready(const seq *s, int i) {
    return s->images[i].pic && s->images[i].pic->ready;
}
bool seq_images_ready(const seq *s); /* all of them */
/* The next picture is pic, whose reference it takes over: false, and nothing taken, when pic is NULL. */
bool seq_take_picture(seq *s, picture *pic);
/* The span [*begin, *end) of rows that see each other in which row stands; false: it is none, and *end is where the next
 * one begins, or INT_MAX. */
bool seq_span(const seq *s, int row, int *begin, int *end);
/* At most n of the rows that are to be computed, so that no span is cut at their end: maybe none. */
int seq_cut(const seq *s, int n);
/* How many of them have to run together at least: the rest of a span, or 1. */
int seq_unit(const seq *s);
/* How many rows can run now: up to the first picture row that is not encoded, or the first that is waited for, no span
 * cut. None where the tokens on their way end the answer, or have to be known first. */
int seq_rows_ready(const seq *s);
/* The first picture that is not encoded and has rows to be computed now, or -1. */
int seq_next_image(const seq *s);
/* Picture i is such a one. */
bool seq_wants_image(const seq *s, int i);

/* Takes pages until n_tok tokens have room; false (and nothing lost) when none are left. */
bool seq_grow(seq *s, kv_cache *kv, int n_tok);
void seq_drop_pages(seq *s, kv_cache *kv); /* all of them; the tokens have to be computed again */

void seq_send_input_done(seq *s); /* once */
/* The chosen token joins the answer and its text goes to the sink. True: the answer is over, *finish says
 * how. On failure s->st is set and true is returned. */
bool seq_accept(seq *s, const sample_result *r, engine_finish *finish);
/* The final event; s->st decides between DONE and ERROR. */
void seq_send_final(seq *s, engine_finish finish);

#endif

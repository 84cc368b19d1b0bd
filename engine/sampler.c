/* sampler.c - see sampler.h. One thread at a time; a sampler owns its lists. */
#include "engine/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- which ids were seen: a hash table over the two lists ---- */

static size_t slot_of(const sampler *s, int32_t id) {
    size_t mask = s->n_slots - 1, i = ((uint32_t)id * 2654435769u >> 7) & mask;
    while (s->slots[i].id >= 0 && s->slots[i].id != id) i = (i + 1) & mask;
    return i;
}

/* Room for one more id at a load of at most one half. */
static bool slots_reserve(sampler *s, size_t n_ids) {
    if (s->n_slots && n_ids * 2 <= s->n_slots) return true;
    size_t n = s->n_slots ? s->n_slots : 64;
    while (n < n_ids * 2) n *= 2;
    sampler_slot *grown = mem_alloc(n * sizeof *grown);
    if (!grown) return false;
    for (size_t i = 0; i < n; i++) grown[i] = (sampler_slot){-1, 0};
    sampler old = *s;
    s->slots = grown;
    s->n_slots = n;
    for (size_t i = 0; i < old.n_slots; i++)
        if (old.slots[i].id >= 0) s->slots[slot_of(s, old.slots[i].id)] = old.slots[i];
    mem_free(old.slots);
    return true;
}

static bool see_prompt(sampler *s, const int32_t *ids, size_t n, int vocab) {
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= vocab) continue; /* a placeholder may lie outside: it has no logit */
        if (!slots_reserve(s, (size_t)s->n_prompt_seen + 1)) return false;
        size_t at = slot_of(s, ids[i]);
        if (s->slots[at].id >= 0) continue;
        s->slots[at] = (sampler_slot){ids[i], (uint32_t)s->n_prompt_seen * 2};
        s->prompt_seen[s->n_prompt_seen++] = ids[i];
    }
    return true;
}

static bool out_reserve(sampler *s) {
    if (s->n_out_seen < s->cap_out) return true;
    int cap = s->cap_out ? s->cap_out * 2 : 64;
    int32_t *ids = mem_realloc(s->out_seen, (size_t)cap * sizeof *ids);
    if (ids) s->out_seen = ids;
    int32_t *counts = mem_realloc(s->out_count, (size_t)cap * sizeof *counts);
    if (counts) s->out_count = counts;
    if (!ids || !counts) return false;
    s->cap_out = cap;
    return true;
}

static bool see_out(sampler *s, int32_t id) {
    if (!slots_reserve(s, (size_t)s->n_prompt_seen + (size_t)s->n_out_seen + 1) || !out_reserve(s))
        return false;
    sampler_slot *slot = &s->slots[slot_of(s, id)];
    if (slot->id >= 0 && slot->at & 1) {
        s->out_count[slot->at / 2]++;
        return true;
    }
    if (slot->id >=
        0) { /* it leaves the prompt's list: the lists stay disjoint, the last one fills the hole */
        int32_t last = s->prompt_seen[--s->n_prompt_seen];
        if (last != id) {
            s->prompt_seen[slot->at / 2] = last;
            s->slots[slot_of(s, last)].at = slot->at;
        }
    }
    *slot = (sampler_slot){id, (uint32_t)s->n_out_seen * 2 + 1};
    s->out_seen[s->n_out_seen] = id;
    s->out_count[s->n_out_seen++] = 1;
    return true;
}

/* ---- the sampler ---- */

static int by_id(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* ids[0..n) sorted, each once; returns how many. */
static int sort_unique(int32_t *ids, int n) {
    if (n == 0) return 0;
    qsort(ids, (size_t)n, sizeof *ids, by_id);
    int m = 1;
    for (int i = 1; i < n; i++)
        if (ids[i] != ids[m - 1]) ids[m++] = ids[i];
    return m;
}

static void copy_ids(int32_t *to, const int32_t *from, int n) {
    if (n > 0) memcpy(to, from, (size_t)n * sizeof *to);
}

/* The request's biases, then -inf for what the model never says, then for every id that could end the answer. An eos id is
 * banned even with ignore_eos, as vLLM does. */
static bool init_bias(sampler *s, const engine_params *p, const model_spec *spec) {
    int always = p->n_bias + spec->n_banned;
    int room = always + (p->min_tokens > 0 ? p->n_stop_ids + spec->n_eos : 0);
    s->bias_ids = mem_alloc((size_t)room * sizeof *s->bias_ids);
    s->bias = mem_alloc((size_t)room * sizeof *s->bias);
    if (!s->bias_ids || !s->bias) return false;
    copy_ids(s->bias_ids, p->bias_ids, p->n_bias);
    if (p->n_bias > 0) memcpy(s->bias, p->bias, (size_t)p->n_bias * sizeof *s->bias);
    copy_ids(s->bias_ids + p->n_bias, spec->banned, spec->n_banned);
    for (int i = p->n_bias; i < always; i++) s->bias[i] = -INFINITY;
    s->n_user_bias = s->n_all_bias = always;
    if (p->min_tokens <= 0) return true;
    int32_t *bans = s->bias_ids + always;
    copy_ids(bans, p->stop_ids, p->n_stop_ids);
    copy_ids(bans + p->n_stop_ids, spec->eos, spec->n_eos);
    s->n_all_bias += sort_unique(bans, p->n_stop_ids + spec->n_eos);
    for (int i = s->n_user_bias; i < s->n_all_bias; i++) s->bias[i] = -INFINITY;
    return true;
}

static bool init_stops(sampler *s, const engine_params *p, const model_spec *spec) {
    int n_eos = p->ignore_eos ? 0 : spec->n_eos;
    s->stop_ids = mem_alloc((size_t)(p->n_stop_ids + n_eos) * sizeof *s->stop_ids);
    if (!s->stop_ids) return false;
    copy_ids(s->stop_ids, p->stop_ids, p->n_stop_ids);
    copy_ids(s->stop_ids + p->n_stop_ids, spec->eos, n_eos);
    s->n_stop_ids = sort_unique(s->stop_ids, p->n_stop_ids + n_eos);
    return true;
}

bool sampler_init(sampler *s, const engine_params *p, const model_spec *spec, const int32_t *prompt_ids,
                  size_t n, uint64_t fresh_seed, status *st) {
    *s = (sampler){.min_tokens = p->min_tokens};
    s->row = (sample_row){
        .temperature = p->temperature,
        .top_p = p->top_p,
        .min_p = p->min_p,
        .top_k = p->top_k,
        .repetition_penalty = p->repetition_penalty,
        .presence_penalty = p->presence_penalty,
        .frequency_penalty = p->frequency_penalty,
        .seed = p->has_seed ? p->seed : fresh_seed,
        .top_logprobs = p->top_logprobs,
    };
    s->tracks = p->repetition_penalty != 1 || p->presence_penalty != 0 || p->frequency_penalty != 0;
    bool ok = init_bias(s, p, spec) && init_stops(s, p, spec);
    if (ok && p->repetition_penalty != 1) { /* only this one reads the prompt */
        size_t room = n < (size_t)spec->text.vocab ? n : (size_t)spec->text.vocab;
        s->prompt_seen = mem_alloc((room + 1) * sizeof *s->prompt_seen);
        ok = s->prompt_seen && see_prompt(s, prompt_ids, n, spec->text.vocab);
    }
    if (!ok) {
        sampler_fini(s);
        return status_set(st, ST_NO_MEMORY, "no memory for the sampling parameters");
    }
    return true;
}

void sampler_fini(sampler *s) {
    mem_free(s->bias_ids);
    mem_free(s->bias);
    mem_free(s->stop_ids);
    mem_free(s->prompt_seen);
    mem_free(s->out_seen);
    mem_free(s->out_count);
    mem_free(s->slots);
    *s = (sampler){0};
}

void sampler_row(const sampler *s, uint32_t position, int n_ahead, sample_row *out) {
    CHECK(n_ahead == 0 || !sampler_needs_last(s));
    *out = s->row;
    out->position = position;
    out->bias_ids = s->bias_ids;
    out->bias = s->bias;
    out->n_bias = s->n_out + n_ahead < s->min_tokens ? s->n_all_bias : s->n_user_bias;
    out->prompt_seen = s->prompt_seen;
    out->n_prompt_seen = s->n_prompt_seen;
    out->out_seen = s->out_seen;
    out->out_count = s->out_count;
    out->n_out_seen = s->n_out_seen;
}

bool sampler_accept(sampler *s, int32_t id) {
    s->n_out++;
    return !s->tracks || id < 0 || see_out(s, id);
}

bool sampler_is_stop(const sampler *s, int32_t id) {
    return s->n_stop_ids > 0 && bsearch(&id, s->stop_ids, (size_t)s->n_stop_ids, sizeof id, by_id);
}

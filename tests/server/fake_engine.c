/* fake_engine.c - engine.h with scripted answers, for tests of the server only; never linked into build/vlmd.
 *
 * The last user text is the script, words of the form name=value:
 *   tokens=N  delay_ms=N (between tokens)  first_ms=N (before the first)  input_ms=N (before INPUT_DONE)
 *   say=TEXT (each token; "_" is a space, "#" the choice's number)  big=N (bytes per token)  error_after=N
 *   more=N (tokens that each choice makes more than the one before)  error_choice=N (which one error_after is of)
 *   lost_after=N (then the device fails for good, for all)
 *   queue_ms=N (it waits so long to begin)  inline=1 (it runs before engine_submit returns)
 * Choices make their tokens in turn, with ids from 7 on. One thread a job, all at a time; prompts cost a token a byte of text and 36 a picture. The environment
 * variable FAKE_LOAD_MS delays engine_new, FAKE_LOAD_ERROR makes it fail. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/engine.h"

enum { VOCAB = 2048, MAX_LEN = 2048, IMAGE_TOKENS = 36 };

struct prompt {
    int32_t *ids;
    size_t n;
    char script[512];
    bool has_image;
};

typedef struct job {
    struct job *next;
    uint64_t number;
    prompt *p;
    engine_params params;
    engine_sink sink;
    void *user;
    engine *e;
    pthread_t thread;
    atomic_bool cancelled, over;
    int n, made[ENGINE_MAX_CHOICES]; /* choices, and how many tokens each has */
    bool ended[ENGINE_MAX_CHOICES];
} job;

struct engine {
    engine_info info;
    pthread_mutex_t lock;
    job *jobs;
    uint64_t next;
    atomic_int running;
    atomic_bool lost;
    int n_queued; /* under the lock, like the rest of what waits */
    int64_t queued_tokens;
    engine_options o;
    atomic_ullong generated, prompted, stop, length, aborted, failed, images;
};

static void nap(int ms) {
    if (ms <= 0) return;
    struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};
    nanosleep(&t, NULL);
}

static int number(const char *script, const char *name, int otherwise) {
    char key[40];
    snprintf(key, sizeof key, "%s=", name);
    const char *at = strstr(script, key);
    return at ? atoi(at + strlen(key)) : otherwise;
}

engine *engine_new(const engine_options *o, status *st) {
    const char *ms = getenv("FAKE_LOAD_MS"), *error = getenv("FAKE_LOAD_ERROR");
    if (ms) nap(atoi(ms));
    if (error) return status_set(st, ST_INVALID, "%s: %s", o->model_dir, error), NULL;
    engine *e = mem_calloc(1, sizeof *e);
    if (!e) return status_set(st, ST_NO_MEMORY, "no memory"), NULL;
    pthread_mutex_init(&e->lock, NULL);
    e->next = 1;
    e->o = *o;
    e->info = (engine_info){.family = "fake",
                            .kv_dtype = "float32",
                            .kv_pages = 9,
                            .kv_page_tokens = 16,
                            .summary = "scripted answers",
                            .takes_images = true,
                            .max_model_len = o->max_model_len ? o->max_model_len : MAX_LEN,
                            .vocab_size = VOCAB,
                            .image_tokens = IMAGE_TOKENS};
    return e;
}

/* Joins jobs that are over; all of them when `all`. */
static void reap(engine *e, bool all) {
    for (;;) {
        pthread_mutex_lock(&e->lock);
        job **at = &e->jobs;
        while (*at && !all && !atomic_load(&(*at)->over)) at = &(*at)->next;
        job *j = *at;
        if (j) *at = j->next;
        pthread_mutex_unlock(&e->lock);
        if (!j) return;
        if (all) atomic_store(&j->cancelled, true);
        pthread_join(j->thread, NULL);
        mem_free(j);
    }
}

bool engine_check_kv_dtype(const char *name, status *st) {
    return strcmp(name, "auto") == 0 || status_set(st, ST_INVALID, "no kind of KV cache: %s", name);
}

void engine_free(engine *e) {
    reap(e, true);
    pthread_mutex_destroy(&e->lock);
    mem_free(e);
}

const engine_info *engine_get_info(const engine *e) {
    return &e->info;
}

/* ---- prompts ---- */

static void add_text(prompt *p, const char *s) {
    size_t n = strlen(s);
    p->ids = mem_realloc(p->ids, (p->n + n + 1) * sizeof *p->ids);
    for (size_t i = 0; i < n; i++) p->ids[p->n++] = 100 + (unsigned char)s[i];
    snprintf(p->script, sizeof p->script, "%s", s);
}

prompt *engine_prompt_chat(engine *e, const engine_chat *c, status *st) {
    prompt *p = mem_calloc(1, sizeof *p);
    size_t i, k;
    json_t *m, *part;
    int image = 0;
    json_array_foreach(c->messages, i, m) {
        const json_t *content = json_object_get(m, "content");
        if (json_is_string(content))
            add_text(p, json_string_value(content));
        else
            json_array_foreach((json_t *)content, k, part) {
                if (json_object_get(part, "text")) {
                    add_text(p, json_string_value(json_object_get(part, "text")));
                    continue;
                }
                const engine_image *im = &c->images[image++];
                p->has_image = true;
                if (im->n >= 3 && strncmp(im->b64, "BAD", 3) == 0) {
                    status_set(st, ST_INVALID, "picture %d: not a picture", image);
                    status_param(st, "%s", im->param);
                    prompt_free(p);
                    return NULL;
                }
                p->ids = mem_realloc(p->ids, (p->n + IMAGE_TOKENS) * sizeof *p->ids);
                for (int t = 0; t < IMAGE_TOKENS; t++) p->ids[p->n++] = 4;
                atomic_fetch_add(&e->images, 1);
            }
    }
    if (p->n >= (size_t)e->info.max_model_len) {
        status_set(st, ST_INVALID, "the prompt has %zu tokens, the model takes %d", p->n,
                   e->info.max_model_len);
        status_param(st, "messages");
        prompt_free(p);
        return NULL;
    }
    return p;
}

void prompt_free(prompt *p) {
    if (!p) return;
    mem_free(p->ids);
    mem_free(p);
}

const int32_t *prompt_ids(const prompt *p, size_t *n) {
    *n = p->n;
    return p->ids;
}

/* ---- jobs ---- */

void engine_default_params(const engine *e, engine_params *out) {
    (void)e;
    *out = (engine_params){
        .max_tokens = -1, .temperature = 1, .top_p = 1, .repetition_penalty = 1, .top_logprobs = -1};
}

bool engine_check_params(const engine *e, const engine_params *p, const prompt *pr, status *st) {
    if (p->priority && !e->o.by_priority) {
        status_set(st, ST_INVALID, "priority is %d, but this server does not mind it", p->priority);
        return status_param(st, "priority");
    }
    if (p->max_tokens > 0 && (size_t)p->max_tokens + pr->n > (size_t)e->info.max_model_len) {
        status_set(st, ST_INVALID, "%zu prompt tokens and %d more are over %d", pr->n, p->max_tokens,
                   e->info.max_model_len);
        return status_param(st, "max_tokens");
    }
    return true;
}

static void emit(job *j, int choice, const char *text, size_t n) {
    engine_token t = {.id = 7 + choice, .logprob = -0.5f, .bytes = text, .n_bytes = n};
    t.n_top = j->params.top_logprobs > 0 ? j->params.top_logprobs : 0;
    for (int k = 0; k < t.n_top; k++) {
        t.top[k].id = 7 + k;
        t.top[k].logprob = -0.5f - (float)k;
        t.top[k].bytes = k ? "\xE2\x82" : text; /* half a character */
        t.top[k].n_bytes = k ? 2 : n;
    }
    engine_event ev = {
        .kind = ENGINE_TOKENS, .choice = choice, .text = text, .n_text = n, .tokens = &t, .n_tokens = 1};
    j->sink(j->user, &ev);
    j->made[choice]++;
    atomic_fetch_add(&j->e->generated, 1);
}

/* The end of n choices from this one on. */
static void finish(job *j, int choice, int n, status_code code, const char *why, bool stopped) {
    status st = {0};
    engine_event ev = {.kind = ENGINE_DONE,
                       .choice = choice,
                       .n_choices = n,
                       .finish = stopped ? FINISH_STOP : FINISH_LENGTH,
                       .prompt_tokens = (int)j->p->n,
                       .completion_tokens = j->made[choice],
                       .queue_s = 0.001,
                       .prefill_s = 0.002,
                       .decode_s = 0.003};
    if (code != ST_OK) {
        status_set(&st, code, "%s", why);
        ev.kind = ENGINE_ERROR;
        ev.error = &st;
        atomic_fetch_add(code == ST_CANCELLED ? &j->e->aborted : &j->e->failed, (unsigned long long)n);
    } else {
        atomic_fetch_add(stopped ? &j->e->stop : &j->e->length, 1);
    }
    atomic_fetch_sub(&j->e->running, n);
    for (int i = choice; i < choice + n; i++) j->ended[i] = true;
    j->sink(j->user, &ev);
}

/* ---- what waits ---- */

static bool has_room(const engine *e, int64_t tokens, status *st) {
    if (e->n_queued < e->o.max_queued_requests &&
        (e->n_queued == 0 || e->queued_tokens + tokens <= e->o.max_queued_tokens))
        return true;
    return status_set(st, ST_BUSY, "%d requests of %lld tokens wait", e->n_queued,
                      (long long)e->queued_tokens);
}

static bool enter_queue(engine *e, size_t tokens, status *st) {
    pthread_mutex_lock(&e->lock);
    bool ok = has_room(e, (int64_t)tokens, st);
    e->n_queued += ok;
    if (ok) e->queued_tokens += (int64_t)tokens;
    pthread_mutex_unlock(&e->lock);
    return ok;
}

static void leave_queue(engine *e, size_t tokens) {
    pthread_mutex_lock(&e->lock);
    e->n_queued--;
    e->queued_tokens -= (int64_t)tokens;
    pthread_mutex_unlock(&e->lock);
}

bool engine_has_room(engine *e, status *st) {
    pthread_mutex_lock(&e->lock);
    bool ok = has_room(e, 1, st);
    pthread_mutex_unlock(&e->lock);
    return ok;
}

int engine_retry_after_s(engine *e) {
    (void)e;
    return 7;
}

/* ---- a job's life ---- */

static void naps(job *j, int ms) {
    for (; ms > 0 && !atomic_load(&j->cancelled) && !atomic_load(&j->e->lost); ms -= 20)
        nap(ms < 20 ? ms : 20);
}

/* What each token of a choice says; big: or so many bytes. */
static char *word_of(const char *script, int choice, int big) {
    const char *say = strstr(script, "say=");
    size_t n = say ? strcspn(say + 4, " ") : 0;
    char *word = mem_alloc((size_t)big + n + sizeof "word ");
    if (big) {
        memset(word, 'x', (size_t)big);
        word[big] = 0;
        return word;
    }
    snprintf(word, n + sizeof "word ", "%.*s", say ? (int)n : 5, say ? say + 4 : "word ");
    for (char *c = word; say && *c; c++) *c = *c == '_' ? ' ' : *c == '#' ? (char)('0' + choice) : *c;
    return word;
}

static void lose(engine *e) {
    if (atomic_exchange(&e->lost, true) || !e->o.lost) return;
    status st = {0};
    status_set(&st, ST_LOST, "the device failed: test: \"illegal\" address");
    e->o.lost(e->o.lost_user, &st);
}

/* One token, or the end. */
static void step(job *j, int choice, const char *word) {
    const char *s = j->p->script;
    if (j->made[choice] == number(s, "lost_after", -1)) lose(j->e);
    if (atomic_load(&j->e->lost)) {
        finish(j, choice, 1, ST_LOST, "the device failed: test: \"illegal\" address", false);
        return;
    }
    int tokens = number(s, "tokens", 5) + choice * number(s, "more", 0),
        error_after = number(s, "error_after", -1);
    if (number(s, "error_choice", choice) != choice) error_after = -1;
    bool limited = j->params.max_tokens >= 0 && j->params.max_tokens < tokens;
    if (limited) tokens = j->params.max_tokens;
    if (j->made[choice] == error_after || (j->made[choice] >= tokens && error_after >= 0))
        finish(j, choice, 1, ST_INTERNAL, "the device failed", false);
    else if (j->made[choice] >= tokens)
        finish(j, choice, 1, ST_OK, "", !limited);
    else
        emit(j, choice, word, strlen(word));
}

static bool all_ended(const job *j) {
    int n = 0;
    while (n < j->n && j->ended[n]) n++;
    return n == j->n;
}

static void *run(void *arg) {
    job *j = arg;
    const char *s = j->p->script;
    char *words[ENGINE_MAX_CHOICES];
    for (int i = 0; i < j->n; i++) words[i] = word_of(s, i, number(s, "big", 0));
    naps(j, number(s, "queue_ms", 0));
    leave_queue(j->e, j->p->n);
    nap(number(s, "input_ms", 0));
    j->sink(j->user, &(engine_event){.kind = ENGINE_INPUT_DONE});
    naps(j, number(s, "first_ms", 0));
    if (!atomic_load(&j->cancelled) && number(s, "error_after", -1) == 0 && number(s, "error_choice", -1) < 0)
        finish(j, 0, j->n, ST_INTERNAL, "the device failed", false);
    while (!all_ended(j) && !atomic_load(&j->cancelled)) {
        for (int i = 0; i < j->n && !atomic_load(&j->cancelled); i++)
            if (!j->ended[i]) step(j, i, words[i]);
        naps(j, number(s, "delay_ms", 0));
    }
    bool parted = j->made[0] > 0;
    for (int i = 0; i < j->n; i++)
        if (!j->ended[i]) finish(j, i, parted ? 1 : j->n, ST_CANCELLED, "cancelled", false);
    for (int i = 0; i < j->n; i++) mem_free(words[i]);
    prompt_free(j->p);
    atomic_store(&j->over, true);
    return NULL;
}

uint64_t engine_submit(engine *e, prompt *p, const engine_params *params, engine_sink sink, void *user,
                       status *st) {
    reap(e, false);
    if (strstr(p->script, "refuse=1") ? !status_set(st, ST_BUSY, "no room now") : !enter_queue(e, p->n, st)) {
        prompt_free(p);
        return 0;
    }
    job *j = mem_calloc(1, sizeof *j);
    *j = (job){.p = p, .params = *params, .sink = sink, .user = user, .e = e};
    j->n = params->n > 1 ? params->n : 1;
    atomic_fetch_add(&e->running, j->n);
    atomic_fetch_add(&e->prompted, p->n);
    if (strstr(p->script, "inline=1")) {
        run(j);
        mem_free(j);
        return 1;
    }
    pthread_mutex_lock(&e->lock);
    uint64_t n = j->number = e->next++;
    j->next = e->jobs;
    e->jobs = j;
    int err = pthread_create(&j->thread, NULL, run, j);
    CHECK(err == 0);
    pthread_mutex_unlock(&e->lock);
    return n;
}

void engine_cancel(engine *e, uint64_t number_) {
    pthread_mutex_lock(&e->lock);
    for (job *j = e->jobs; j; j = j->next)
        if (j->number == number_) atomic_store(&j->cancelled, true);
    pthread_mutex_unlock(&e->lock);
}

/* ---- vectors: it makes none ---- */

embed *engine_embed_new(engine *e, const engine_embed_input *in, int n, const engine_embed_options *o,
                        status *st) {
    (void)e, (void)in, (void)n, (void)o;
    status_set(st, ST_UNSUPPORTED, "this model generates text and makes no embeddings");
    return NULL;
}

void embed_free(embed *x) {
    CHECK(!x);
}

int embed_tokens(const embed *x) {
    (void)x;
    return 0;
}

uint64_t engine_embed_submit(engine *e, embed *x, engine_sink sink, void *user, status *st) {
    (void)e, (void)x, (void)sink, (void)user;
    status_set(st, ST_INTERNAL, "no vectors");
    return 0;
}

void engine_judge(const engine_rule *r, int width, const float *vectors, int n_labels, double *logits,
                  double *probabilities) {
    (void)r, (void)width, (void)vectors, (void)n_labels, (void)logits, (void)probabilities;
}

/* ---- the rest ---- */

bool engine_tokenize(engine *e, const char *text, size_t n, bool add_special, int32_t **ids, size_t *n_ids,
                     status *st) {
    (void)e, (void)st;
    *ids = mem_alloc((n + 1) * sizeof **ids);
    *n_ids = 0;
    if (add_special) (*ids)[(*n_ids)++] = 1;
    for (size_t i = 0; i < n; i++) (*ids)[(*n_ids)++] = 100 + (unsigned char)text[i];
    return true;
}

bool engine_detokenize(engine *e, const int32_t *ids, size_t n, buf *out, status *st) {
    (void)e, (void)st;
    for (size_t i = 0; i < n; i++)
        if (ids[i] >= 100 && ids[i] < 356) buf_putc(out, (char)(ids[i] - 100));
    return true;
}

bool engine_token_string(engine *e, int32_t id, buf *out) {
    (void)e;
    if (id >= 100 && id < 356) return buf_putc(out, (char)(id - 100));
    return buf_printf(out, "<%d>", id);
}

void engine_get_stats(engine *e, engine_stats *out) {
    pthread_mutex_lock(&e->lock);
    int queued = e->n_queued;
    int64_t tokens = e->queued_tokens;
    pthread_mutex_unlock(&e->lock);
    *out = (engine_stats){.running = atomic_load(&e->running) - queued,
                          .waiting = queued,
                          .queued = queued,
                          .queued_tokens = tokens,
                          .prompt_tokens = atomic_load(&e->prompted),
                          .generation_tokens = atomic_load(&e->generated),
                          .finished_stop = atomic_load(&e->stop),
                          .finished_length = atomic_load(&e->length),
                          .finished_abort = atomic_load(&e->aborted),
                          .finished_error = atomic_load(&e->failed),
                          .images = atomic_load(&e->images)};
}

bool tool_tokenize(const tool_tokenize_opts *o, FILE *in, FILE *out, status *st) {
    (void)o, (void)in, (void)out;
    return status_set(st, ST_UNSUPPORTED, "this is a test program");
}
bool tool_render(const char *path, FILE *in, FILE *out, status *st) {
    (void)path, (void)in, (void)out;
    return status_set(st, ST_UNSUPPORTED, "this is a test program");
}
bool tool_inspect(const char *dir, FILE *out, status *st) {
    (void)dir, (void)out;
    return status_set(st, ST_UNSUPPORTED, "this is a test program");
}
bool tool_families(FILE *out, status *st) {
    (void)out;
    return status_set(st, ST_UNSUPPORTED, "this is a test program");
}

/* engine.h - the only header of the engine that server/ includes: load a model, make prompts, run jobs.
 *
 * Threads: engine_new/engine_free from one thread; everything else from any thread. One engine thread owns
 * sequences, pages and model state; picture workers decode and resize; HTTP threads call in here and never wait
 * for the device. Text in and out is UTF-8.
 * Errors: functions that can fail return false/NULL/0 and fill a status; only server/reply maps it to HTTP. */
#ifndef VLMD_ENGINE_ENGINE_H
#define VLMD_ENGINE_ENGINE_H

#include <jansson.h>
#include <stdio.h>

#include "kernels/base.h"

typedef struct engine engine;

typedef struct engine_options { /* 0 / NULL: the default in brackets */
    const char *model_dir;
    const char *chat_template;  /* [the checkpoint's] a file, Jinja or JSON with it under chat_template */
    const char *device;         /* ["cpu"] */
    const char *isa;            /* [best]; see backend_options */
    int threads;                /* [one per online core] */
    int max_model_len;          /* [the model's max_position_embeddings] prompt and answer, in tokens */
    int max_num_seqs;           /* [16; 128 on a GPU] sequences in a step */
    int max_num_batched_tokens; /* [512; 2048 on a GPU] rows in a step */
    size_t
        kv_cache_bytes; /* [enough for max_num_seqs/2 full lengths, at most a quarter of memory; a GPU: what
                                   the plan leaves] */
    const char *kv_cache_dtype;    /* ["auto": backend_kv_type's] "float32", "bfloat16", "float16" */
    double gpu_memory_utilization; /* [0.9] of a GPU's memory that the plan may use */
    bool enforce_eager;            /* decode steps of a GPU are launched op by op, never captured as graphs */
    bool allow_tf32;          /* a GPU may round factors of f32 weights to TF32; nothing with deterministic */
    bool deterministic;       /* bits of a row do not depend on the batch on a GPU either; slower there */
    int64_t max_image_pixels; /* [64 million] */
    int image_workers;        /* [2] threads that decode and resize */
    size_t image_cache_bytes; /* [0: off] encoded pictures that are kept for whoever shows them again */
    bool no_prefix_caching;   /* every job computes its whole prompt */
    /* What may wait at a time; engine_submit refuses the rest with ST_BUSY. */
    int max_queued_requests; /* [256] jobs that no step has taken yet, those with pictures to decode included */
    int64_t max_queued_tokens; /* [a million] prompt tokens of all of them */
    size_t image_bytes;        /* [1 GiB] pictures waiting, being decoded, being encoded, encoded and kept */
    bool by_priority;          /* engine_params.priority goes before the order of arrival */
    /* [nothing] Called once, on the engine's thread, when the device has failed for good: jobs that run and jobs to come end
     * with ST_LOST, and only another process can use the device again. */
    void (*lost)(void *user, const status *why);
    void *lost_user;
} engine_options;

bool engine_check_kv_dtype(const char *name, status *st); /* of engine_options */
/* Loads the model and starts the threads; returns when jobs can run. Errors name file, tensor, expected, found. */
engine *engine_new(const engine_options *o, status *st);
/* Every job gets its final event (ENGINE_ERROR, ST_CANCELLED) before this returns. */
void engine_free(engine *e);

/* How a model that makes vectors judges a pair: scale * cosine + bias is its logit; probabilities are each pair's own
 * (sigmoid), or those of one picture's labels together (softmax). */
typedef struct engine_rule {
    double scale, bias;
    bool sigmoid;
} engine_rule;

typedef struct engine_info {
    const char *family;  /* "llava", "llama", ... as the registry names it */
    const char *summary; /* one line: tower, join, decoder, dtype, threads; for the start message */
    bool takes_images;
    int max_model_len, vocab_size;
    size_t weight_bytes, kv_bytes, kv_bytes_per_token, activation_bytes;
    const char *kv_dtype; /* as engine_options names it */
    int kv_pages, kv_page_tokens;
    size_t image_bytes, image_cache_bytes; /* the latter within the former */
    int image_tokens;                      /* of a typical picture, 0 without a tower */
    int embed_width; /* numbers of a vector: the model makes vectors (engine_embed_new) and no chat; 0: the other way round */
    engine_rule rule; /* of a model that makes vectors */
    /* A device with memory of its own, else 0: all it has, what is planned of that, and for the backend's own work. */
    size_t device_bytes, device_planned_bytes, workspace_bytes;
} engine_info;
const engine_info *engine_get_info(const engine *e); /* lives as long as e */

/* ---- prompts ---------------------------------------------------------------------------------------------- */

/* A picture's base64, as it lies in the request body. The bytes must stay where they are until the job's
 * ENGINE_INPUT_DONE, or until prompt_free when it is never submitted. */
typedef struct engine_image {
    const char *b64;
    size_t n;
    const char *param; /* the field it came from, for messages: "messages[0].content[1].image_url"; copied */
} engine_image;

typedef struct engine_chat {
    /* Array of message objects: "role" (system | user | assistant | tool) and "content", a string or a list of
     * {"type":"text","text":...} and {"type":"image"}; other keys are passed on to the template. The n-th
     * {"type":"image"} of all messages is images[n]. */
    const json_t *messages;
    const engine_image *images;
    int n_images;
    const json_t *template_kwargs; /* object or NULL: further template variables */
    bool no_generation_prompt;
} engine_chat;

typedef struct prompt
    prompt; /* ids with the picture placeholders expanded, and the pictures not yet decoded */

/* Renders, tokenises and counts from picture headers alone; decodes no pixels. Errors: ST_INVALID / ST_UNSUPPORTED
 * (bad picture, template's refusal, pictures for a text model, a chat that is no question for a model that answers those), each
 * with param; a prompt that leaves no room for
 * one token within max_model_len: ST_INVALID with both numbers. */
prompt *engine_prompt_chat(engine *e, const engine_chat *c, status *st);
void prompt_free(prompt *p); /* NULL is fine */
/* What is read as the prompt, in order: of a model that answers a question, the question, then the token that the answer starts
 * behind. Lives as long as p. */
const int32_t *prompt_ids(const prompt *p, size_t *n);

/* ---- jobs ---------------------------------------------------------------------------------------------------- */

enum { ENGINE_MAX_CHOICES = 16 };

typedef struct engine_params {
    int max_tokens; /* -1: as many as fit */
    int min_tokens;
    float temperature, top_p, min_p;
    int top_k; /* 0: off */
    float repetition_penalty, presence_penalty, frequency_penalty;
    bool has_seed; /* else a fresh one is drawn */
    uint64_t seed;
    bool ignore_eos;
    int top_logprobs; /* -1: none, else 0..20 */
    /* Lists are copied by engine_submit. */
    const char *const *stop;
    int n_stop;
    const int32_t *stop_ids;
    int n_stop_ids;
    const int32_t *bias_ids;
    const float *bias;
    int n_bias;
    const char *cache_salt; /* NULL: none. Only jobs of one salt share computed pages */
    int n; /* choices, each an answer of its own to the one prompt; 0 is 1. Choice i draws by seed + i */
    int priority; /* lower is earlier; anything but 0 needs engine_options.by_priority */
} engine_params;
/* What a request gets that sets nothing: generation_config.json over the API's defaults. */
void engine_default_params(const engine *e, engine_params *out);
/* Checks ranges and the number of tokens that can be asked for, with OpenAI's field name in param. */
bool engine_check_params(const engine *e, const engine_params *p, const prompt *pr, status *st);

typedef struct engine_token {
    int32_t id;
    float logprob;
    const char *bytes; /* the bytes it adds to the text: none for a special token */
    size_t n_bytes;
    const char *special; /* a special token's spelling in the vocabulary, else NULL */
    int n_top;
    struct engine_top {
        int32_t id;
        float logprob;
        const char *bytes;
        size_t n_bytes;
        const char *special;
    } top[20];
} engine_token;

typedef enum engine_finish { FINISH_STOP, FINISH_LENGTH } engine_finish;

typedef enum engine_event_kind {
    ENGINE_INPUT_DONE, /* pictures are decoded: the request body may go. Once, before any other event but ERROR */
    ENGINE_TOKENS,     /* new text and tokens */
    ENGINE_DONE,       /* final of a choice: finished by itself */
    ENGINE_ERROR       /* final of a choice: error says why (ST_CANCELLED after engine_cancel) */
} engine_event_kind;

typedef struct engine_event {
    engine_event_kind kind;
    int choice; /* TOKENS, DONE, ERROR: 0..n-1 */
    /* DONE, ERROR: how many choices, from this one on, it is the end of. More than one when a job ends before its
     * choices part, with the prompt's last row: as with a picture that cannot be decoded. */
    int n_choices;
    /* TOKENS: text is whole UTF-8 characters already cleared of stop strings; it may be empty while a stop string
     * or a character is undecided. Tokens carry log-probs when asked for (logprob 0 otherwise). */
    const char *text;
    size_t n_text;
    const engine_token *tokens;
    int n_tokens;
    /* DONE */
    engine_finish finish;
    int prompt_tokens, completion_tokens;
    int cached_tokens; /* of the prompt's: their keys and values were there already; choice 0: before the job came */
    /* Seconds from submission to the first turn that runs it (its pictures' decode included), from there to the first
     * token, and from the first token to the end. */
    double queue_s, prefill_s, decode_s;
    /* DONE of a job for vectors: f32 [n_vectors, vector_width], in the order of its inputs; prefill_s is all its time */
    const float *vectors;
    int n_vectors, vector_width;
    /* ERROR */
    const status *error;
} engine_event;

/* Called on the engine's thread or a picture worker, one event of a job at a time; must return at once (push to a
 * queue, wake somebody). Pointers in ev live for the call. */
typedef void (*engine_sink)(void *user, const engine_event *ev);

/* Takes the prompt (freed by the engine, also on failure). Returns the job's number, or 0. After a number was
 * returned exactly one final event for each choice comes; they may come before this returns. ST_BUSY: it does not fit
 * now, see engine_has_room; ST_TOO_LARGE: it never will. */
uint64_t engine_submit(engine *e, prompt *p, const engine_params *params, engine_sink sink, void *user,
                       status *st);
/* ---- vectors: a model of two towers ---------------------------------------------------------------------------- */

typedef struct engine_embed_input { /* one of the three */
    const char *text;
    size_t n_text;
    const int32_t *ids; /* of a text, as they are to be read: nothing is added */
    size_t n_ids;
    const engine_image *image; /* bytes and param as in engine_chat */
    const char *param;         /* the field a text came from, for messages */
} engine_embed_input;

typedef struct engine_embed_options {
    bool truncate; /* cut texts that are too long */
    bool raw;      /* vectors as the towers give them, of any length */
    int priority;  /* as engine_params.priority */
} engine_embed_options;

typedef struct embed embed; /* inputs as ids and pictures not yet decoded */

/* Tokenises texts and looks at picture headers; n is at least 1. A user's text never becomes a special token. Errors:
 * ST_UNSUPPORTED, the model makes no vectors; ST_INVALID, a text that is too long (with both numbers), a bad id or
 * picture, each with its param. */
embed *engine_embed_new(engine *e, const engine_embed_input *in, int n, const engine_embed_options *o,
                        status *st);
void embed_free(embed *x);        /* NULL is fine */
int embed_tokens(const embed *x); /* of texts; of a picture, its rows in the tower */
/* As engine_submit: takes x; INPUT_DONE, then one final event, DONE with the vectors or ERROR. */
uint64_t engine_embed_submit(engine *e, embed *x, engine_sink sink, void *user, status *st);

/* Any thread, pure: vectors [1 + n_labels, width], a picture's and its labels', of any length, to logits and
 * probabilities [n_labels]. */
void engine_judge(const engine_rule *r, int width, const float *vectors, int n_labels, double *logits,
                  double *probabilities);

/* ---- jobs of both kinds ---- */

/* Frees what the job holds within one turn; its final events still come. A number that is over is ignored. */
void engine_cancel(engine *e, uint64_t job);
/* Whether a job could be taken now, as far as can be said before its body is parsed; constant time. Errors: ST_BUSY. */
bool engine_has_room(engine *e, status *st);
/* Seconds until what waits now should have begun, by the rate at which jobs have begun lately; at least 1. */
int engine_retry_after_s(engine *e);

/* ---- tokens as a service ----------------------------------------------------------------------------------------- */

/* *ids is mem_alloc'd, the caller frees it with mem_free. */
bool engine_tokenize(engine *e, const char *text, size_t n, bool add_special, int32_t **ids, size_t *n_ids,
                     status *st);
bool engine_detokenize(engine *e, const int32_t *ids, size_t n, buf *out, status *st);
bool engine_token_string(engine *e, int32_t id, buf *out); /* as the vocabulary spells it */

/* ---- counters (for /metrics), a snapshot ------------------------------------------------------------------------- */

enum { ENGINE_ROW_BUCKETS = 14 }; /* of 2^0, 2^3, 2^4 .. 2^14 rows and of more: see engine_row_bound */
static inline int engine_row_bound(int i) { /* for i < ENGINE_ROW_BUCKETS - 1 */
    return i ? 4 << i : 1;
}

typedef struct engine_stats {
    int running, waiting;  /* choices of jobs; waiting includes those whose pictures are being decoded */
    int queued;            /* jobs that no step has taken yet */
    int64_t queued_tokens; /* their prompts */
    double kv_usage;       /* 0..1 of the pages */
    /* Of prompts once a job; generated tokens and ends of every choice. images: encodes that ran to their end */
    uint64_t preemptions, prompt_tokens, generation_tokens, finished_stop, finished_length, finished_abort,
        finished_error, images, steps;
    /* Places that show a picture, and those whose picture was known, or being decoded or encoded already. */
    uint64_t mm_cache_queries, mm_cache_hits;
    uint64_t image_decodes;
    size_t image_cache_bytes; /* held now: rows, and pixels that wait to be encoded */
    size_t image_bytes;       /* these, and what is promised to pictures that are to be decoded or encoded */
    uint64_t image_tokens;    /* of computed prompts */
    uint64_t rows, steps_by_rows[ENGINE_ROW_BUCKETS]; /* steps by how many rows they had; not cumulative */
    uint64_t prefix_cache_queries, prefix_cache_hits; /* prompt tokens looked for and found; by choice 0 */
    int64_t pixels_in_flight;                         /* of submitted pictures that are not encoded yet */
    uint64_t embeddings;                              /* vectors made */
    double image_decode_seconds, image_resize_seconds, image_encode_seconds;
    double device_idle_seconds; /* in which it stood still though jobs ran (engine/idle.h); 0 on a CPU */
} engine_stats;
void engine_get_stats(engine *e, engine_stats *out);

/* ---- tools: what the command line does besides serving -------------------------------------------------------------- */

typedef struct tool_tokenize_opts {
    const char *path; /* tokenizer.json as it is, or a checkpoint's folder */
    bool no_special, json_lines, decode;
} tool_tokenize_opts;
bool tool_tokenize(const tool_tokenize_opts *o, FILE *in, FILE *out, status *st);
/* A JSON object of variables on in, the rendered prompt on out, byte for byte. */
bool tool_render(const char *template_file_or_dir, FILE *in, FILE *out, status *st);
/* What vlmd understood of a checkpoint: architecture, tensors, what was ignored, memory, tokens per picture. */
bool tool_inspect(const char *model_dir, FILE *out, status *st);
/* The families of models that vlmd knows, a table in Markdown. */
bool tool_families(FILE *out, status *st);

#endif

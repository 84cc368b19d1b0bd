/* serve.h - `vlmd serve`: options, start, loading beside a listening socket, signals, draining.
 * Threads: the main one. Tested by tests/e2e/test_start.py. */
#ifndef VLMD_SERVER_SERVE_H
#define VLMD_SERVER_SERVE_H

#include "kernels/base.h"
#include "server/args.h"

typedef struct serve_options {
    const char *model, *host, *device, *isa, *config, *log_level;
    int port, threads, http_threads, max_model_len, max_num_seqs, max_num_batched_tokens, image_workers,
        max_connections;
    size_t kv_cache_memory, max_body_size;
    int64_t max_image_pixels;
    double request_timeout, headers_timeout, body_timeout, keepalive_seconds, drain_seconds;
    arg_list api_key, served_model_name;
} serve_options;

extern const arg_command serve_command;

typedef enum serve_result {
    SERVE_DONE,   /* drained after a signal */
    SERVE_FAILED, /* st says why */
    SERVE_LOADING /* a signal came while the model was loading: that thread still runs, leave without waiting
                   */
} serve_result;

/* What the table of options cannot say; sets the log level. Errors: ST_INVALID, bad usage. */
bool serve_check(const serve_options *o, const char *positional, status *st);
/* Returns after SIGTERM or SIGINT. argv0 helps to find the bundled model. */
serve_result serve_run(const serve_options *o, const char *positional, status *st);

/* The folder given, or the bundled model's: beside the program, above it, or in the current folder.
 * buf-owned. */
bool serve_find_model(const char *given, buf *path, status *st);

#endif

/* serve_options.h - what `vlmd serve` can be told, and the table that flags and config files share.
 * Threads: one. Memory: see args.h. Tested by tests/server/test_args.c. */
#ifndef VLMD_SERVER_SERVE_OPTIONS_H
#define VLMD_SERVER_SERVE_OPTIONS_H

#include "kernels/base.h"
#include "server/args.h"

typedef struct serve_options {
    const char *model, *host, *device, *isa, *config, *log_level, *log_format, *uds, *ssl_certfile,
        *ssl_keyfile, *scheduling_policy, *kv_cache_dtype, *chat_template;
    bool api_key_for_all, allow_credentials;
    int port, threads, http_threads, max_model_len, max_num_seqs, max_num_batched_tokens, image_workers,
        max_connections, max_queued_requests;
    double gpu_memory_utilization;
    bool deterministic, enforce_eager;
    size_t kv_cache_memory, image_memory, image_cache_memory, max_body_size, request_memory;
    int64_t max_image_pixels, max_queued_tokens;
    double request_timeout, headers_timeout, body_timeout, keepalive_seconds, drain_seconds;
    bool no_prefix_caching;
    arg_list api_key, served_model_name, allowed_origins, allowed_methods, allowed_headers;
} serve_options;

extern const arg_command serve_command;

/* What the table of options cannot say; sets the log level. Errors: ST_INVALID, bad usage. */
bool serve_check(const serve_options *o, const char *positional, status *st);

#endif

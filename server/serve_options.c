/* serve_options.c - see serve_options.h. One thread; owns nothing. */
#include "server/serve_options.h"

#include <string.h>
#include <strings.h>

#include "engine/engine.h"
#include "server/cors.h"

#define OPT(field) offsetof(serve_options, field)
static const arg_def serve_defs[] = {
    {"model", ARG_STRING, OPT(model), "DIR", NULL, 0, 0, "model folder, when not given as argument", false},
    {"served-model-name", ARG_LIST, OPT(served_model_name), "NAME", NULL, 0, 0,
     "what clients call it, may be repeated [the folder's name]", false},
    {"chat-template", ARG_STRING, OPT(chat_template), "FILE", NULL, 0, 0,
     "Jinja template that makes prompts of messages [the checkpoint's]", false},
    {"host", ARG_STRING, OPT(host), "ADDR", "127.0.0.1", 0, 0, "address to listen on", false},
    {"port", ARG_INT, OPT(port), "N", "8000", 0, 65535, "port to listen on; 0 picks a free one", false},
    {"api-key", ARG_LIST, OPT(api_key), "KEY", NULL, 0, 0,
     "key that clients must send, may be repeated [none]", false},
    {"api-key-for-all", ARG_FLAG, OPT(api_key_for_all), NULL, NULL, 0, 0,
     "ask for a key on /health and /metrics, too", false},
    {"uds", ARG_STRING, OPT(uds), "PATH", NULL, 0, 0, "listen on a Unix socket instead of host and port",
     false},
    {"ssl-certfile", ARG_STRING, OPT(ssl_certfile), "FILE", NULL, 0, 0,
     "certificate (and its chain) in PEM form: serve HTTPS", false},
    {"ssl-keyfile", ARG_STRING, OPT(ssl_keyfile), "FILE", NULL, 0, 0, "its private key in PEM form", false},
    {"allowed-origins", ARG_LIST, OPT(allowed_origins), "ORIGIN", NULL, 0, 0,
     "web pages that may call this server, * for all, may be repeated [none]", false},
    {"allowed-methods", ARG_LIST, OPT(allowed_methods), "METHOD", NULL, 0, 0,
     "methods that they may use [all there are]", false},
    {"allowed-headers", ARG_LIST, OPT(allowed_headers), "NAME", NULL, 0, 0,
     "headers that they may send [any]", false},
    {"allow-credentials", ARG_FLAG, OPT(allow_credentials), NULL, NULL, 0, 0,
     "they may send cookies and the like", false},
    {"max-model-len", ARG_INT, OPT(max_model_len), "N", NULL, 1, 1e8,
     "tokens of prompt and answer together [the model's]", false},
    {"max-num-seqs", ARG_INT, OPT(max_num_seqs), "N", NULL, 1, 4096, "sequences in a step [16; on a GPU 128]",
     false},
    {"max-num-batched-tokens", ARG_INT, OPT(max_num_batched_tokens), "N", NULL, 1, 1e6,
     "rows in a step [512; on a GPU 2048]", false},
    {"max-queued-requests", ARG_INT, OPT(max_queued_requests), "N", "256", 1, 1e6,
     "requests that may wait to begin; more get 429", false},
    {"max-queued-tokens", ARG_COUNT, OPT(max_queued_tokens), "N", "1M", 1, 1e12,
     "prompt tokens that may wait to begin", false},
    {"scheduling-policy", ARG_STRING, OPT(scheduling_policy), "NAME", "fcfs", 0, 0,
     "fcfs, or priority: by the requests' own", false},
    {"kv-cache-memory", ARG_SIZE, OPT(kv_cache_memory), "SIZE", NULL, 0, 0,
     "memory of the KV cache [by model]", false},
    {"kv-cache-dtype", ARG_STRING, OPT(kv_cache_dtype), "TYPE", "auto", 0, 0,
     "its numbers: float32, bfloat16, float16; auto: the weights' on a GPU without --deterministic, else "
     "float32",
     false},
    {"gpu-memory-utilization", ARG_REAL, OPT(gpu_memory_utilization), "F", "0.9", 0.01, 1,
     "part of a GPU's memory that may be used", false},
    {"deterministic", ARG_FLAG, OPT(deterministic), NULL, "false", 0, 0,
     "on a GPU, too, an answer's bits never depend on what runs beside it; slower", false},
    {"enforce-eager", ARG_FLAG, OPT(enforce_eager), NULL, "false", 0, 0,
     "on a GPU launch every step op by op, without CUDA graphs; a CPU has none", false},
    {"no-prefix-caching", ARG_FLAG, OPT(no_prefix_caching), NULL, "false", 0, 0,
     "compute every prompt from its first token", false},
    {"device", ARG_STRING, OPT(device), "NAME", "auto", 0, 0,
     "where to compute: cpu, cuda, cuda:N; auto: a GPU where there is one", false},
    {"isa", ARG_STRING, OPT(isa), "NAME", NULL, 0, 0,
     "instruction set: portable, avx2, avx512 [the best there is]", false},
    {"threads", ARG_INT, OPT(threads), "N", NULL, 0, 1024, "compute threads [one per core]", false},
    {"http-threads", ARG_INT, OPT(http_threads), "N", "4", 1, 256, "threads that talk to clients", false},
    {"image-workers", ARG_INT, OPT(image_workers), "N", NULL, 0, 256, "threads that decode pictures [2]",
     false},
    {"image-memory", ARG_SIZE, OPT(image_memory), "SIZE", "1G", 1 << 20, 1e15,
     "memory of all pictures: decoded, being encoded, encoded", false},
    {"image-cache-memory", ARG_SIZE, OPT(image_cache_memory), "SIZE", "256M", 0, 0,
     "of it, encoded pictures that may come again; 0: off", false},
    {"max-image-pixels", ARG_COUNT, OPT(max_image_pixels), "N", "64M", 1, 1e12, "largest picture, in pixels",
     false},
    {"max-body-size", ARG_SIZE, OPT(max_body_size), "SIZE", "64M", 1024, 1e12, "largest request body", false},
    {"request-memory", ARG_SIZE, OPT(request_memory), "SIZE", "1G", 1024, 1e15,
     "memory of all request bodies; more get 429", false},
    {"max-connections", ARG_INT, OPT(max_connections), "N", "1024", 1, 1e6, "connections at a time", false},
    {"request-timeout", ARG_REAL, OPT(request_timeout), "S", "0", 0, 1e9, "longest generation; 0: no limit",
     false},
    {"headers-timeout", ARG_REAL, OPT(headers_timeout), "S", "60", 0, 1e9, "longest wait for a request",
     false},
    {"body-timeout", ARG_REAL, OPT(body_timeout), "S", "60", 0, 1e9, "longest pause within a body", false},
    {"keepalive-seconds", ARG_REAL, OPT(keepalive_seconds), "S", "15", 0, 1e9,
     "how often a silent stream gets a comment", false},
    {"drain-seconds", ARG_REAL, OPT(drain_seconds), "S", "30", 0, 1e9,
     "how long a stop waits for running requests", false},
    {"log-level", ARG_STRING, OPT(log_level), "NAME", "info", 0, 0, "debug, info, warn or error", false},
    {"log-format", ARG_STRING, OPT(log_format), "NAME", "text", 0, 0, "text or json", false},
    {"config", ARG_STRING, OPT(config), "FILE", NULL, 0, 0, "JSON file with these names; flags win", true},
};

const arg_command serve_command = {
    .name = "serve",
    .usage = "serve [OPTIONS] [MODEL_DIR]",
    .about = "Serves a checkpoint folder over the OpenAI chat API; without one, the bundled model.",
    .defs = serve_defs,
    .n_defs = ARRAY_LEN(serve_defs),
    .max_pos = 1,
    .pos_name = "MODEL_DIR",
};

bool serve_check(const serve_options *o, const char *positional, status *st) {
    static const char *const names[] = {"debug", "info", "warn", "error"};
    if (positional && o->model && strcmp(positional, o->model) != 0)
        return status_set(st, ST_INVALID, "the model is named twice: %.150s and --model %.150s", positional,
                          o->model);
    for (int i = 0; i < o->api_key.n; i++)
        if (!*o->api_key.v[i]) return status_set(st, ST_INVALID, "--api-key must not be empty");
    for (int i = 0; i < o->served_model_name.n; i++)
        if (!*o->served_model_name.v[i])
            return status_set(st, ST_INVALID, "--served-model-name must not be empty");
    if (!o->ssl_certfile != !o->ssl_keyfile)
        return status_set(st, ST_INVALID, "--ssl-certfile and --ssl-keyfile go together; --%s is missing",
                          o->ssl_certfile ? "ssl-keyfile" : "ssl-certfile");
    if (!engine_check_kv_dtype(o->kv_cache_dtype, st)) return false;
    if (strcmp(o->scheduling_policy, "fcfs") != 0 && strcmp(o->scheduling_policy, "priority") != 0)
        return status_set(st, ST_INVALID, "--scheduling-policy expects fcfs or priority, found \"%.40s\"",
                          o->scheduling_policy);
    if (o->image_cache_memory > o->image_memory)
        return status_set(st, ST_INVALID,
                          "--image-cache-memory (%zu bytes) is a part of --image-memory (%zu bytes)",
                          o->image_cache_memory, o->image_memory);
    if (o->max_body_size > o->request_memory)
        return status_set(st, ST_INVALID,
                          "--max-body-size (%zu bytes) must fit into --request-memory (%zu bytes)",
                          o->max_body_size, o->request_memory);
    if (o->uds && !*o->uds) return status_set(st, ST_INVALID, "--uds must not be empty");
    cors c;
    if (!cors_init(&c, &o->allowed_origins, &o->allowed_methods, &o->allowed_headers, o->allow_credentials,
                   st))
        return false;
    cors_fini(&c);
    bool json = strcasecmp(o->log_format, "json") == 0;
    if (!json && strcasecmp(o->log_format, "text") != 0)
        return status_set(st, ST_INVALID, "--log-format expects text or json, found \"%.40s\"",
                          o->log_format);
    log_set_json(json);
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strcasecmp(o->log_level, names[i]) == 0) {
            log_set_level((log_level)i);
            return true;
        }
    return status_set(st, ST_INVALID, "--log-level expects debug, info, warn or error, found \"%.40s\"",
                      o->log_level);
}

/* metrics.c - see metrics.h. Any thread; owns nothing. Format: Prometheus text exposition 0.0.4. */
#include "server/metrics.h"

#include <string.h>

static const int codes[] = {200, 204, 400, 401, 404, 405, 408, 413, 429, 500, 503};

/* Why a request was refused. The first word with its status is what a refusal that gives no reason counts as. */
static const struct {
    int http;
    const char *reason;
} reasons[] = {{400, "bad_request"}, {400, "bad_image"},  {401, "api_key"},        {404, "not_found"},
               {405, "method"},      {408, "timeout"},    {413, "body_too_large"}, {429, "busy"},
               {503, "unavailable"}, {503, "connections"}};

/* vLLM's bounds, with smaller ones in front: small models are faster than its lowest. */
static const double first_bounds[] = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
                                      1,     2.5,   5,    7.5,  10,   20,   40,   80,  160,  640, 2560};
static const double between_bounds[] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3,
                                        0.4,   0.5,    0.75,  1,    2.5,   5,    7.5,   10,  20,   40,  80};
static const double request_bounds[] = {0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 1,   1.5, 2,   2.5, 5,    10,
                                        15,   20,   30,  40,  50,  60,  120, 240, 480, 960, 1920, 7680};
static const double token_bounds[] = {1,   2,    5,    10,   20,    50,    100,   200,
                                      500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};

static void bounds(histogram *h, const double *b, size_t n) {
    CHECK(n <= METRICS_BUCKETS);
    h->bounds = b;
    h->n = (int)n;
}

void metrics_init(metrics *m) {
    bounds(&m->first_token, first_bounds, ARRAY_LEN(first_bounds));
    bounds(&m->between_tokens, between_bounds, ARRAY_LEN(between_bounds));
    histogram *const of_requests[] = {&m->end_to_end, &m->queue, &m->prefill, &m->decode};
    for (size_t i = 0; i < ARRAY_LEN(of_requests); i++)
        bounds(of_requests[i], request_bounds, ARRAY_LEN(request_bounds));
    bounds(&m->prompt, token_bounds, ARRAY_LEN(token_bounds));
    bounds(&m->generation, token_bounds, ARRAY_LEN(token_bounds));
}

static void observe(histogram *h, double v) {
    int i = 0;
    while (i < h->n && v > h->bounds[i]) i++;
    atomic_fetch_add(&h->counts[i], 1);
    atomic_fetch_add(&h->sum_millionths, (unsigned long long)(v > 0 ? v * 1e6 : 0));
}

static int find_reason(int http, const char *reason) {
    for (size_t i = 0; i < ARRAY_LEN(reasons); i++)
        if (reasons[i].http == http && (!reason || strcmp(reason, reasons[i].reason) == 0)) return (int)i;
    return -1;
}

void metrics_reply(metrics *m, int http, const char *reason) {
    for (size_t i = 0; i < ARRAY_LEN(codes); i++)
        if (codes[i] == http) atomic_fetch_add(&m->replies[i], 1);
    int k = find_reason(http, reason);
    if (k >= 0) atomic_fetch_add(&m->refusals[k], 1);
}

const char *metrics_reason(int http, const char *reason) {
    int k = find_reason(http, reason);
    return k < 0 ? NULL : reasons[k].reason;
}

void metrics_token(void *arg, double seconds, bool first) {
    metrics *m = arg;
    observe(first ? &m->first_token : &m->between_tokens, seconds);
}

void metrics_end(void *arg, const engine_event *done, double seconds) {
    metrics *m = arg;
    observe(&m->end_to_end, seconds);
    observe(&m->queue, done->queue_s);
    observe(&m->prefill, done->prefill_s);
    observe(&m->decode, done->decode_s);
    observe(&m->prompt, done->prompt_tokens);
    observe(&m->generation, done->completion_tokens);
}

/* ---- text
 * --------------------------------------------------------------------------------------------------- */

static void head(buf *b, const char *name, const char *type, const char *help) {
    buf_printf(b, "# HELP vlmd:%s %s\n# TYPE vlmd:%s %s\n", name, help, name, type);
}

/* A label's value: backslash, quote and newline are escaped. */
static void label(buf *b, const char *s) {
    for (; *s; s++) {
        if (*s == '\\' || *s == '"') buf_putc(b, '\\');
        if (*s == '\n')
            buf_puts(b, "\\n");
        else
            buf_putc(b, *s);
    }
}

static void one(buf *b, const char *name, const char *type, const char *help, const char *model, double v) {
    head(b, name, type, help);
    buf_printf(b, "vlmd:%s{model_name=\"%s\"} %.17g\n", name, model, v);
}

static void write_histogram(buf *b, const char *name, const char *help, const char *model, histogram *h) {
    head(b, name, "histogram", help);
    unsigned long long total = 0;
    for (int i = 0; i <= h->n; i++) {
        total += atomic_load(&h->counts[i]);
        if (i < h->n)
            buf_printf(b, "vlmd:%s_bucket{model_name=\"%s\",le=\"%g\"} %llu\n", name, model, h->bounds[i],
                       total);
        else
            buf_printf(b, "vlmd:%s_bucket{model_name=\"%s\",le=\"+Inf\"} %llu\n", name, model, total);
    }
    buf_printf(b, "vlmd:%s_sum{model_name=\"%s\"} %.6f\n", name, model,
               (double)atomic_load(&h->sum_millionths) * 1e-6);
    buf_printf(b, "vlmd:%s_count{model_name=\"%s\"} %llu\n", name, model, total);
}

static void write_steps(buf *b, const char *m, const engine_stats *s) {
    const char *name = "iteration_tokens_total";
    head(b, name, "histogram", "Rows (tokens) of a step of the engine.");
    unsigned long long total = 0;
    for (int i = 0; i < ENGINE_ROW_BUCKETS; i++) {
        total += s->steps_by_rows[i];
        buf_printf(b, "vlmd:%s_bucket{model_name=\"%s\",le=\"", name, m);
        if (i < ENGINE_ROW_BUCKETS - 1)
            buf_printf(b, "%d\"} %llu\n", engine_row_bound(i), total);
        else
            buf_printf(b, "+Inf\"} %llu\n", total);
    }
    buf_printf(b, "vlmd:%s_sum{model_name=\"%s\"} %llu\n", name, m, (unsigned long long)s->rows);
    buf_printf(b, "vlmd:%s_count{model_name=\"%s\"} %llu\n", name, m, total);
}

static void write_images(buf *b, const char *m, const engine_stats *s) {
    one(b, "images_total", "counter", "Pictures encoded.", m, (double)s->images);
    one(b, "mm_cache_queries_total", "counter", "Pictures looked for in the picture cache.", m,
        (double)s->mm_cache_queries);
    one(b, "mm_cache_hits_total", "counter", "Pictures that were known or on their way already.", m,
        (double)s->mm_cache_hits);
    one(b, "image_cache_bytes", "gauge", "Memory of pictures held, decoded or encoded.", m,
        (double)s->image_cache_bytes);
    one(b, "image_memory_used_bytes", "gauge", "Memory for pictures, held or promised.", m,
        (double)s->image_bytes);
    one(b, "image_decodes_total", "counter", "Pictures decoded.", m, (double)s->image_decodes);
    one(b, "image_tokens_total", "counter", "Prompt tokens that pictures took.", m, (double)s->image_tokens);
    one(b, "image_pixels_in_flight", "gauge", "Pixels of pictures taken in and not encoded yet.", m,
        (double)s->pixels_in_flight);
    one(b, "image_decode_seconds_total", "counter", "Time spent decoding pictures.", m,
        s->image_decode_seconds);
    one(b, "image_resize_seconds_total", "counter", "Time spent resizing and cropping pictures.", m,
        s->image_resize_seconds);
    one(b, "image_encode_seconds_total", "counter", "Time spent encoding pictures in the tower.", m,
        s->image_encode_seconds);
}

static void write_engine(buf *b, const char *m, const engine_info *info, const engine_stats *s) {
    one(b, "num_requests_running", "gauge", "Requests that the engine works on.", m, s->running);
    one(b, "num_requests_waiting", "gauge", "Requests that wait for their turn.", m, s->waiting);
    one(b, "num_requests_queued", "gauge", "Requests that no step has taken yet.", m, s->queued);
    one(b, "queued_prompt_tokens", "gauge", "Prompt tokens of requests that no step has taken yet.", m,
        (double)s->queued_tokens);
    one(b, "kv_cache_usage_perc", "gauge", "KV cache usage, 1 is full.", m, s->kv_usage);
    if (info->kv_pages) {
        head(b, "cache_config_info", "gauge", "What the KV cache is made of, as labels.");
        buf_printf(b,
                   "vlmd:cache_config_info{model_name=\"%s\",block_size=\"%d\",cache_dtype=\"%s\",num_gpu_"
                   "blocks=\"%d\"} 1\n",
                   m, info->kv_page_tokens, info->kv_dtype, info->kv_pages);
    }
    one(b, "num_preemptions_total", "counter", "Sequences that had to give way.", m, (double)s->preemptions);
    one(b, "prompt_tokens_total", "counter", "Prompt tokens computed.", m, (double)s->prompt_tokens);
    one(b, "generation_tokens_total", "counter", "Tokens generated.", m, (double)s->generation_tokens);
    one(b, "prefix_cache_queries_total", "counter", "Prompt tokens looked for in the prefix cache.", m,
        (double)s->prefix_cache_queries);
    one(b, "prefix_cache_hits_total", "counter", "Prompt tokens found in the prefix cache.", m,
        (double)s->prefix_cache_hits);
    head(b, "request_success_total", "counter", "Finished requests by reason.");
    const struct {
        const char *reason;
        uint64_t n;
    } ends[] = {{"stop", s->finished_stop},
                {"length", s->finished_length},
                {"abort", s->finished_abort},
                {"error", s->finished_error}};
    for (size_t i = 0; i < ARRAY_LEN(ends); i++)
        buf_printf(b, "vlmd:request_success_total{model_name=\"%s\",finished_reason=\"%s\"} %llu\n", m,
                   ends[i].reason, (unsigned long long)ends[i].n);
    one(b, "engine_steps_total", "counter", "Steps of the engine.", m, (double)s->steps);
    write_steps(b, m, s);
    one(b, "device_idle_seconds_total", "counter",
        "Time in which the device stood still between steps and encodes while requests ran, by its own "
        "clock; gaps "
        "between the kernels of one are not seen; 0 on a CPU.",
        m, s->device_idle_seconds);
    write_images(b, m, s);
    one(b, "embeddings_total", "counter", "Vectors made.", m, (double)s->embeddings);
    one(b, "weight_bytes", "gauge", "Memory of the weights.", m, (double)info->weight_bytes);
    one(b, "kv_cache_bytes", "gauge", "Memory of the KV cache.", m, (double)info->kv_bytes);
    one(b, "activation_bytes", "gauge", "Memory of a step's activations.", m, (double)info->activation_bytes);
    one(b, "image_memory_bytes", "gauge", "Memory for pictures at most.", m, (double)info->image_bytes);
}

void metrics_bodies(const char *model, size_t max, size_t used, buf *out) {
    buf name = {0};
    label(&name, model);
    const char *n = name.data ? name.data : "";
    one(out, "request_memory_bytes", "gauge", "Memory for request bodies at most.", n, (double)max);
    one(out, "request_memory_used_bytes", "gauge", "Memory of request bodies.", n, (double)used);
    buf_fini(&name);
}

void metrics_text(metrics *m, const char *model, const engine_info *info, const engine_stats *stats,
                  buf *out) {
    buf name = {0};
    label(&name, model);
    const char *n = name.data ? name.data : "";
    if (info && stats) write_engine(out, n, info, stats);
    const struct {
        const char *name, *help;
        histogram *h;
    } all[] = {
        {"time_to_first_token_seconds", "From the request to its first token.", &m->first_token},
        {"inter_token_latency_seconds", "From one token to the next.", &m->between_tokens},
        {"e2e_request_latency_seconds", "From the request to its last token.", &m->end_to_end},
        {"request_queue_time_seconds", "From submission to the first turn, decode of pictures included.",
         &m->queue},
        {"request_prefill_time_seconds", "From the first turn to the first token.", &m->prefill},
        {"request_decode_time_seconds", "From the first token to the last.", &m->decode},
        {"request_prompt_tokens", "Prompt tokens of a finished request.", &m->prompt},
        {"request_generation_tokens", "Generated tokens of a finished request.", &m->generation},
    };
    for (size_t i = 0; i < ARRAY_LEN(all); i++) write_histogram(out, all[i].name, all[i].help, n, all[i].h);
    head(out, "request_refusals_total", "counter", "Requests refused, by reason.");
    for (size_t i = 0; i < ARRAY_LEN(reasons); i++)
        buf_printf(out, "vlmd:request_refusals_total{model_name=\"%s\",reason=\"%s\"} %llu\n", n,
                   reasons[i].reason, (unsigned long long)atomic_load(&m->refusals[i]));
    head(out, "http_responses_total", "counter", "Replies by HTTP status.");
    for (size_t i = 0; i < ARRAY_LEN(codes); i++)
        buf_printf(out, "vlmd:http_responses_total{code=\"%d\"} %llu\n", codes[i],
                   (unsigned long long)atomic_load(&m->replies[i]));
    buf_fini(&name);
}

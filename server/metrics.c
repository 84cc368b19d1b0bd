/* metrics.c - see metrics.h. Any thread; owns nothing. Format: Prometheus text exposition 0.0.4. */
#include "server/metrics.h"

#include <math.h>

static const int codes[] = {200, 204, 400, 401, 404, 405, 408, 413, 429, 500, 503};

static const double ttft_bounds[] = {0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160};
static const double e2e_bounds[] = {0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640};

void metrics_init(metrics *m) {
    m->ttft.bounds = ttft_bounds;
    m->ttft.n = ARRAY_LEN(ttft_bounds);
    m->e2e.bounds = e2e_bounds;
    m->e2e.n = ARRAY_LEN(e2e_bounds);
}

static void observe(histogram *h, double seconds) {
    int i = 0;
    while (i < h->n && seconds > h->bounds[i]) i++;
    atomic_fetch_add(&h->counts[i], 1);
    atomic_fetch_add(&h->sum_us, (unsigned long long)(seconds > 0 ? seconds * 1e6 : 0));
}

void metrics_reply(metrics *m, int http) {
    for (size_t i = 0; i < ARRAY_LEN(codes); i++)
        if (codes[i] == http) atomic_fetch_add(&m->replies[i], 1);
}

void metrics_job(metrics *m, const outbox_end *end, outbox *ob) {
    double t0, t1, t2;
    outbox_times(ob, &t0, &t1, &t2);
    if (t1 > 0) observe(&m->ttft, t1 - t0);
    if (end->ended && !end->failed) observe(&m->e2e, t2 - t0);
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
               (double)atomic_load(&h->sum_us) * 1e-6);
    buf_printf(b, "vlmd:%s_count{model_name=\"%s\"} %llu\n", name, model, total);
}

static void write_engine(buf *b, const char *m, const engine_info *info, const engine_stats *s) {
    one(b, "num_requests_running", "gauge", "Requests that the engine works on.", m, s->running);
    one(b, "num_requests_waiting", "gauge", "Requests that wait for their turn.", m, s->waiting);
    one(b, "kv_cache_usage_perc", "gauge", "KV cache usage, 1 is full.", m, s->kv_usage);
    one(b, "num_preemptions_total", "counter", "Sequences that had to give way.", m, (double)s->preemptions);
    one(b, "prompt_tokens_total", "counter", "Prompt tokens computed.", m, (double)s->prompt_tokens);
    one(b, "generation_tokens_total", "counter", "Tokens generated.", m, (double)s->generation_tokens);
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
    one(b, "images_total", "counter", "Pictures taken in.", m, (double)s->images);
    one(b, "image_decode_seconds_total", "counter", "Time spent decoding and resizing pictures.", m,
        s->image_decode_seconds);
    one(b, "image_encode_seconds_total", "counter", "Time spent encoding pictures.", m,
        s->image_encode_seconds);
    one(b, "weight_bytes", "gauge", "Memory of the weights.", m, (double)info->weight_bytes);
    one(b, "kv_cache_bytes", "gauge", "Memory of the KV cache.", m, (double)info->kv_bytes);
}

void metrics_text(metrics *m, const char *model, const engine_info *info, const engine_stats *stats,
                  buf *out) {
    buf name = {0};
    label(&name, model);
    const char *n = name.data ? name.data : "";
    if (info && stats) write_engine(out, n, info, stats);
    write_histogram(out, "time_to_first_token_seconds", "Seconds to the first token.", n, &m->ttft);
    write_histogram(out, "e2e_request_latency_seconds", "Seconds to the last token.", n, &m->e2e);
    head(out, "http_responses_total", "counter", "Replies by HTTP status.");
    for (size_t i = 0; i < ARRAY_LEN(codes); i++)
        buf_printf(out, "vlmd:http_responses_total{code=\"%d\"} %llu\n", codes[i],
                   (unsigned long long)atomic_load(&m->replies[i]));
    buf_fini(&name);
}

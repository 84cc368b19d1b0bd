/* metrics.h - counters of the HTTP side, and the Prometheus text of those and the engine's.
 *
 * Names and meanings are vLLM's where it has them, under vlmd:. Threads: any; counters are atomic.
 * Tested by tests/e2e/test_metrics.py. */
#ifndef VLMD_SERVER_METRICS_H
#define VLMD_SERVER_METRICS_H

#include <stdatomic.h>

#include "engine/engine.h"
#include "server/outbox.h"

enum { METRICS_BUCKETS = 24, METRICS_CODES = 24, METRICS_REASONS = 16 };

typedef struct histogram {
    const double *bounds;
    int n;
    atomic_ullong counts[METRICS_BUCKETS + 1], sum_millionths;
} histogram;

typedef struct metrics {
    histogram first_token, between_tokens, end_to_end, queue, prefill, decode, prompt, generation;
    atomic_ullong replies[METRICS_CODES], refusals[METRICS_REASONS];
} metrics;

void metrics_init(metrics *m);
/* A reply with this HTTP status; reason: of a refusal, one of those in metrics.c, or NULL for the status's own. */
void metrics_reply(metrics *m, int http, const char *reason);
/* The label that a refusal counts under; NULL: not counted as one. */
const char *metrics_reason(int http, const char *reason);
/* An outbox's observer (outbox_options.on_token, on_end) with a metrics as argument. */
void metrics_token(void *m, double seconds, bool first);
void metrics_end(void *m, const engine_event *done, double seconds);
/* Memory of request bodies: at most, and held now. */
void metrics_bodies(const char *model, size_t max, size_t used, buf *out);
/* info and stats may be NULL while the engine is not there. */
void metrics_text(metrics *m, const char *model, const engine_info *info, const engine_stats *stats,
                  buf *out);

#endif

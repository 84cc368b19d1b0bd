/* metrics.h - counters of the HTTP side, and the Prometheus text of those and the engine's.
 *
 * Names and meanings are vLLM's where it has them, under vlmd:. Threads: any; counters are atomic.
 * Tested by tests/e2e/test_routes.py. */
#ifndef VLMD_SERVER_METRICS_H
#define VLMD_SERVER_METRICS_H

#include <stdatomic.h>

#include "engine/engine.h"
#include "server/outbox.h"

enum { METRICS_BUCKETS = 16, METRICS_CODES = 24 };

typedef struct histogram {
    const double *bounds;
    int n;
    atomic_ullong counts[METRICS_BUCKETS + 1], sum_us;
} histogram;

typedef struct metrics {
    histogram ttft, e2e;
    atomic_ullong replies[METRICS_CODES];
} metrics;

void metrics_init(metrics *m);
void metrics_reply(metrics *m, int http);
void metrics_job(metrics *m, const outbox_end *end, outbox *ob);
/* info and stats may be NULL while the engine is not there. */
void metrics_text(metrics *m, const char *model, const engine_info *info, const engine_stats *stats,
                  buf *out);

#endif

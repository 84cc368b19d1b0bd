/* serve.h - `vlmd serve`: start, loading beside a listening socket, signals, draining.
 * Threads: the main one. Tested by tests/e2e/test_start.py. */
#ifndef VLMD_SERVER_SERVE_H
#define VLMD_SERVER_SERVE_H

#include "kernels/base.h"
#include "server/serve_options.h"

typedef enum serve_result {
    SERVE_DONE,   /* drained after a signal */
    SERVE_FAILED, /* st says why */
    SERVE_LOST, /* the device failed for good, and who was there has been told: leave, with a status of its own */
    SERVE_LOADING /* a signal came while the model was loading: that thread still runs, leave without waiting
                   */
} serve_result;

/* Returns after SIGTERM or SIGINT. argv0 helps to find the bundled model. */
serve_result serve_run(const serve_options *o, const char *positional, status *st);

/* The folder given, or the bundled model's: beside the program, above it, or in the current folder.
 * buf-owned. */
bool serve_find_model(const char *given, buf *path, status *st);

#endif

/* warm.h - what runs at start in the place of requests, on a device where launches are prepared: a step of each bucket of rows
 * and blank pictures of each kind of pass, so that products have their plans and kernels are loaded before the first request.
 *
 * Results are dropped: no page, no cache and no figure knows of them. Memory is that of the plan: scratch, and for pictures what
 * is there for pictures. In the machine's memory nothing happens.
 * Thread: the loader's. Errors: what a request would get. Tested by tests/engine/sched/test_device.c. */
#ifndef VLMD_ENGINE_WARM_H
#define VLMD_ENGINE_WARM_H

#include "engine/runner.h"

struct embed_run;

/* image_bytes: of all pictures at a time; 0: none is run. */
bool warm_runner(runner *r, size_t image_bytes, status *st);
bool warm_embed_run(struct embed_run *r, size_t image_bytes, status *st);

#endif

/* claim.h - what a job's pictures will take of the memory for pictures, known from their headers before any is decoded.
 *
 * A job holds a claim for the pictures that it has not taken from the cache yet; it shrinks as they are taken, since
 * from then on the cache counts them, once for all who show them. Threads: whoever owns the job. Tested by
 * tests/engine/sched/test_admission.c. */
#ifndef VLMD_ENGINE_CLAIM_H
#define VLMD_ENGINE_CLAIM_H

#include "engine/seq.h"

/* Claims room for all pictures of a new job. Errors: ST_TOO_LARGE, they never fit; ST_BUSY, not now. */
bool claim_pictures(seq *s, piccache *c, status *st);
void claim_taken(seq *s); /* after a picture was taken */

#endif

/* pace.h - how much encode and prefill a turn may carry while somebody decodes.
 *
 * A stream's inter-token latency is the turn's length, so a turn is to be no longer than about twice what a step of its
 * decode rows takes when nothing else runs. What is left of that is for pictures and prefill, half each, and what one
 * does not want is the other's. A slice or a row that is longer than its share waits until the shares of some turns
 * together pay for it, so both always progress.
 *
 * A step's time is predicted as fixed_s + row_s * rows. Steps of decode rows alone correct fixed_s; all others correct
 * both by normalised least mean squares (Haykin, Adaptive Filter Theory), many rows more of row_s. Beside it stands
 * alone_s, what a step of decode rows takes after another such step: of a small model that is less, for its weights are
 * then still in the caches that pictures empty. Where work never ends two turns of every thirty carry none: after the
 * first of them both are measured anew. The prediction starts small, follows a machine that changes its speed, and takes
 * no outlier for more than a doubling.
 *
 * No clock and no thread of its own. Threads: the engine's. Tested by tests/engine/sched/test_pace.c. */
#ifndef VLMD_ENGINE_PACE_H
#define VLMD_ENGINE_PACE_H

#include <stdbool.h>

typedef struct pace {
    double fixed_s, row_s; /* the prediction; both 0: no step yet */
    double alone_s;        /* of alone_rows decode rows after others such; 0: not yet */
    int alone_rows;
    double slice_s; /* what a slice took lately */
    int tried_rows; /* of the largest step lately */
    bool plain;     /* the last turn carried decode rows alone */
    int n_mixed;    /* turns since the last measure */
    /* of this turn */
    int n_decode, probe;      /* probe > 0: it is to carry decode rows alone, and so many turns from it on */
    double budget_s, spent_s; /* for all that is not decode; by pictures so far */
    double encode_s,
        prefill_s; /* what either may still use; what is left, or owed, is carried to the next turn */
} pace;

/* Would a step of so many rows carry decode rows alone, this turn? */
bool pace_is_plain(const pace *p, int rows);
/* After a step of so many rows (at least 1), which may be of a turn before. */
void pace_step_took(pace *p, int rows, bool plain, double seconds);
/* Seconds of a step; 0 before the first. */
double pace_predict(const pace *p, int rows);

/* A turn begins: n_decode rows of streams; does any sequence have prefill rows to run? */
void pace_begin(pace *p, int n_decode, bool prefill_waits);
/* May one slice more run? The first of all always may. */
bool pace_may_encode(const pace *p);
void pace_slice_took(pace *p, double seconds);
/* Where slices run beside the host: one was launched, and counts as what the last ones took; so many took so long. */
void pace_slice_launched(pace *p);
void pace_slices_took(pace *p, int n, double seconds);
/* After the slices: how many prefill rows beside the decode rows, at most max_rows. encode_waits: pictures remain. */
int pace_prefill_rows(pace *p, int max_rows, bool encode_waits);
/* So many prefill rows more ran than that, since they cannot be divided: the turns that follow carry none until their
 * shares have paid for them. */
void pace_overdrawn(pace *p, int rows);

#endif

/* gather.h - which pictures go through the tower together: those that wait when an encode begins, with tiles of one grid, as
 * many as fit into a block of rows (encode_room_beside).
 *
 * The scheduler names a picture whose turn it is, then offers others in the order in which they are wanted. What has begun takes
 * in nobody: who comes later is in the next encode. Nobody waits for company, either.
 * Threads: the engine's. Owner: nobody; the pictures' holders hold them. Tested by tests/engine/sched/test_gather.c. */
#ifndef VLMD_ENGINE_GATHER_H
#define VLMD_ENGINE_GATHER_H

#include "engine/piccache.h"

enum { GATHER_MOST = 64 };

typedef struct gather {
    const model *m;
    picture *all[GATHER_MOST];
    int n, room; /* room: for so many tiles more */
} gather;

void gather_begin(gather *g, const model *m, picture *first);
/* Takes it in where it can go with the others; any picture may be offered, any number of times. */
void gather_offer(gather *g, picture *p);
/* Begins the encode of all of them, or, where memory is short, of the first alone. False: of none. */
bool gather_start(gather *g, backend *be, status *st);

#endif

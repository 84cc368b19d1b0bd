/* share.h - how a sequence finds, waits for and offers pages that others compute as well.
 *
 * Only whole pages are shared, and the last token that a sequence has is always computed: its logits are wanted.
 * Who computes a page says so first (kv_claim); a sequence that comes to a page that another is filling waits for
 * it. It waits for one that is at the same place of the same prefix or before it, so there are no circles; and
 * when the other gives up, its claims are gone and the next one takes them.
 * Threads: the engine's. Tested by tests/engine/sched/test_prefix.c. */
#ifndef VLMD_ENGINE_SHARE_H
#define VLMD_ENGINE_SHARE_H

#include "engine/seq.h"

/* Once the pictures of s have their keys: its root comes to hold all that its rows see besides their past. Pictures that
 * stand apart are seen by every row; a prompt that attends both ways is seen whole, so that only equal prompts share; a row
 * within a picture's span sees the picture, which the row's own page names. */
void share_root(seq *s);
/* s shares pages with the other choices of its job and with nobody else, whatever its rows depend on besides. */
void share_within_job(seq *s);
/* Pages for all tokens that s has, those that are filled already shared; it holds none before. False (and nothing
 * taken) unless `spare` pages are left then. */
bool share_admit(seq *s, kv_cache *kv, int spare);
/* Before a turn: takes over what others have filled in the meantime, claims what nobody has, and sets s->wait_row.
 * alone: s is to go on without waiting for anybody. */
void share_follow(seq *s, kv_cache *kv, bool alone);
/* After a step: rows [before, to) were computed. */
void share_filled(seq *s, kv_cache *kv, int before, int to);

#endif

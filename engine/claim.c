/* claim.c - see claim.h. Pictures of one job are decoded one after the other. */
#include "engine/claim.h"

#include <inttypes.h>

/* While a picture is decoded and prepared, beyond its prepared pixels. */
static size_t decode_need(const prompt_image *im) {
    size_t prepare = (size_t)im->info.w * (size_t)im->info.h * 3 +
                     prep_work_bytes(&im->pixels.plan, im->info.w, im->info.h);
    return im->info.decode_bytes > prepare ? im->info.decode_bytes : prepare;
}

static size_t kept_need(const seq *s, int i) {
    const prompt_image *im = &s->prompt->images[i];
    return piccache_need(prep_plan_bytes(&im->pixels.plan), im->encode_bytes);
}

/* The copy of several pictures' keys and values. */
static size_t seen_need(const seq *s) {
    size_t n = 0;
    for (int i = 0; s->apart && s->prompt->n_images > 1 && i < s->prompt->n_images; i++)
        n += s->prompt->images[i].row_bytes;
    return n;
}

bool claim_pictures(seq *s, piccache *c, status *st) {
    size_t kept = 0, decode = 0;
    int largest = 0;
    for (int i = 0; i < s->prompt->n_images; i++) {
        prompt_image *im = &s->prompt->images[i];
        im->decode_need = decode_need(im);
        kept += kept_need(s, i);
        if (im->decode_need <= decode) continue;
        decode = im->decode_need;
        largest = i;
    }
    size_t copies = seen_need(s) * (size_t)s->n_choices;
    bool wait = false, ok = true;
    if (s->prompt->n_images) ok = piccache_claim(c, &s->claim, kept, decode, &s->awaits_room, st);
    if (ok && copies) ok = piccache_claim(c, &s->seen_claim, copies, 0, &wait, st);
    if (wait) s->awaits_room = true;
    if (ok) return true;
    if (st->code == ST_TOO_LARGE) status_param(st, "%s", s->prompt->images[largest].param);
    return false;
}

void claim_taken(seq *s) {
    if (!s->claim.cache) return;
    size_t kept = 0, decode = 0;
    for (int i = s->n_taken; i < s->prompt->n_images; i++) {
        kept += kept_need(s, i);
        if (s->prompt->images[i].decode_need > decode) decode = s->prompt->images[i].decode_need;
    }
    piccache_shrink_claim(&s->claim, kept, decode);
}

/* key.h - names of pictures that no other picture has: SHA-256 of what a tower would read, and of the bytes it came
 * from.
 *
 * Threads: pure; they run on the picture workers. Owner: nothing here allocates. Source: FIPS 180-4 (nettle).
 * Tested by tests/engine/image/test_key.c and tests/engine/test_prompt.c. */
#ifndef VLMD_ENGINE_IMAGE_KEY_H
#define VLMD_ENGINE_IMAGE_KEY_H

#include "engine/image/tiles.h"

enum { IMAGE_KEY_BYTES = 32 };

/* Content: equal for two pictures only when they were w x h before preparation, were prepared by one plan, and became the
 * same pixels, which are read by the same rule and with the same text. What is hashed, each number 32 bits with the low byte
 * first, floats by their bits: "vlmd pixels 3", the mode "RGB8", w, h; the plan: n_steps, then each step's from, x, y, w, h,
 * rw, rh, filter, cx, cy, cw, ch, tw, th and the three of pad_rgb; prep's rescale, mean and std; n_text and its ids; the
 * pixels. The text, where n_text is not 0, is there. */
void image_key(const tiles *t, int w, int h, const prep_spec *prep, uint8_t out[IMAGE_KEY_BYTES]);
/* Source: "vlmd base64 3", the plan, prep's numbers and the text likewise, the base64 as it lies in the body. Two spellings of
 * one file have two of these and one content. Of t the pixels need not be there. */
void image_source_key(const image_source *src, const tiles *t, const prep_spec *prep,
                      uint8_t out[IMAGE_KEY_BYTES]);

#endif

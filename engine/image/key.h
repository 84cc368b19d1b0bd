/* key.h - names of pictures that no other picture has: SHA-256 of what a tower would read, and of the bytes it came
 * from.
 *
 * Threads: pure; they run on the picture workers. Owner: nothing here allocates. Source: FIPS 180-4 (nettle).
 * Tested by tests/engine/image/test_key.c and tests/engine/test_prompt.c. */
#ifndef VLMD_ENGINE_IMAGE_KEY_H
#define VLMD_ENGINE_IMAGE_KEY_H

#include "engine/image/image.h"

enum { IMAGE_KEY_BYTES = 32 };

/* Content: equal for two pictures only when they were w x h before preparation, were prepared by the same parameters,
 * and became the same pixels. What is hashed, each number 32 bits with the low byte first, floats by their bits:
 * "vlmd pixels 1", the mode "RGB8", w, h, prep's fields in the order of image.h (flags as numbers), im->w, im->h, im's
 * pixels. */
void image_key(const image *im, int w, int h, const prep_spec *prep, uint8_t out[IMAGE_KEY_BYTES]);
/* Source: of the base64 as it lies in the body, and prep's fields; "vlmd base64 1" in front. Two spellings of one
 * file have two of these and one content. */
void image_source_key(const image_source *src, const prep_spec *prep, uint8_t out[IMAGE_KEY_BYTES]);

#endif

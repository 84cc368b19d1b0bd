/* image_url.h - a picture in a request: a data URL, lifted out of the body or left in its JSON string.
 *
 * Threads: any. Memory: what is found points into the body or the JSON. Source: RFC 2397. Tested by
 * tests/server/test_chat_request.c and test_embed_request.c. */
#ifndef VLMD_SERVER_IMAGE_URL_H
#define VLMD_SERVER_IMAGE_URL_H

#include <jansson.h>

#include "server/body_scan.h"

/* The base64 of v, a JSON string. *lifted: it lies in the body, else in v itself. Errors name param. */
bool image_url_find(const body_scan *scan, const json_t *v, const char *param, const char **b64, size_t *n,
                    bool *lifted, status *st);
/* The string of "image_url": itself, or an object's "url", whose other fields are checked. NULL with st set. *full: its
 * path, a buffer of 64 bytes. */
const json_t *image_url_of(const json_t *v, const char *param, char *full, status *st);

#endif

/* tls.h - reads the certificate and its key, and says in words what is wrong with the files.
 * Threads: any. Tested by tests/e2e/test_network.py. */
#ifndef VLMD_SERVER_TLS_H
#define VLMD_SERVER_TLS_H

#include "kernels/base.h"

typedef struct tls_files { /* PEM text */
    buf cert, key;
} tls_files;
/* Errors: ST_INVALID / ST_IO, naming option and file. After a failure nothing is owned. */
bool tls_load(const char *certfile, const char *keyfile, tls_files *out, status *st);
void tls_fini(tls_files *t); /* wipes the key */

#endif

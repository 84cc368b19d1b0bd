/* listen.h - opens the listening socket. Threads: any. Tested by tests/e2e/test_start.py. */
#ifndef VLMD_SERVER_LISTEN_H
#define VLMD_SERVER_LISTEN_H

#include "kernels/base.h"

/* Returns the socket (the caller closes it) and the port it got, or -1. Errors: ST_IO, with a message that
 * says what to do (port in use, not allowed, no such address). */
int listen_open(const char *host, int port, int *got_port, status *st);
/* The same on a Unix socket, which is made with the permissions that the umask leaves. A socket that nobody listens on
 * any more (its server was killed) is replaced. */
int listen_unix(const char *path, status *st);

#endif

/* listen.c - see listen.h. Any thread; the caller owns the socket. */
#include "server/listen.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int try_address(const struct addrinfo *a) {
    int fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol), one = 1;
    if (fd < 0) return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, 1024) == 0) return fd;
    int e = errno;
    close(fd);
    errno = e;
    return -1;
}

static int port_of(int fd) {
    struct sockaddr_storage a;
    socklen_t n = sizeof a;
    if (getsockname(fd, (struct sockaddr *)&a, &n) != 0) return 0;
    if (a.ss_family == AF_INET6) return ntohs(((struct sockaddr_in6 *)&a)->sin6_port);
    return ntohs(((struct sockaddr_in *)&a)->sin_port);
}

int listen_open(const char *host, int port, int *got_port, status *st) {
    struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM},
                    *list = NULL;
    char text[16];
    snprintf(text, sizeof text, "%d", port);
    int err = getaddrinfo(host, text, &hints, &list);
    if (err) {
        status_set(st, ST_IO, "--host %.100s: %s", host, gai_strerror(err));
        return -1;
    }
    int fd = -1;
    errno = 0;
    for (const struct addrinfo *a = list; a && fd < 0; a = a->ai_next) fd = try_address(a);
    freeaddrinfo(list);
    if (fd >= 0) {
        *got_port = port_of(fd);
        return fd;
    }
    if (errno == EADDRINUSE)
        status_set(
            st, ST_IO,
            "port %d on %.100s is in use by another program; choose one with --port (0 picks a free one)",
            port, host);
    else if (errno == EACCES)
        status_set(st, ST_IO, "this user may not listen on port %d; choose one above 1023 with --port", port);
    else if (errno == EADDRNOTAVAIL)
        status_set(st, ST_IO, "--host %.100s is no address of this machine", host);
    else
        status_set(st, ST_IO, "cannot listen on %.100s port %d: %s", host, port, strerror(errno));
    return -1;
}

/* True: the path is free now. */
static bool clear_path(const struct sockaddr_un *a, status *st) {
    struct stat s;
    if (lstat(a->sun_path, &s) != 0) return true; /* bind will say what else is wrong */
    if (!S_ISSOCK(s.st_mode))
        return status_set(st, ST_IO, "--uds %.120s is there already, and is no socket", a->sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool dead = fd >= 0 && connect(fd, (const struct sockaddr *)a, sizeof *a) != 0 && errno == ECONNREFUSED;
    if (fd >= 0) close(fd);
    if (!dead) return status_set(st, ST_IO, "--uds %.120s is in use by another program", a->sun_path);
    unlink(a->sun_path);
    return true;
}

int listen_unix(const char *path, status *st) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof a.sun_path) {
        status_set(st, ST_IO, "--uds: a socket's path has at most %zu bytes, found %zu",
                   sizeof a.sun_path - 1, strlen(path));
        return -1;
    }
    strcpy(a.sun_path, path);
    if (!clear_path(&a, st)) return -1;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof a) == 0 && listen(fd, 1024) == 0) return fd;
    status_set(st, ST_IO, "cannot listen on --uds %.120s: %s", path, strerror(errno));
    if (fd >= 0) close(fd);
    return -1;
}

/* tls.c - see tls.h. Whether key and certificate belong together is for the TLS library to find. */
#include "server/tls.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_PEM = 1 << 20 };

static bool read_file(const char *option, const char *path, buf *out, status *st) {
    struct stat s;
    if (stat(path, &s) != 0) return status_set(st, ST_IO, "--%s %.200s: %s", option, path, strerror(errno));
    if (!S_ISREG(s.st_mode)) return status_set(st, ST_INVALID, "--%s %.200s is no file", option, path);
    if (s.st_size > MAX_PEM)
        return status_set(st, ST_INVALID, "--%s %.200s is too large for PEM text", option, path);
    if (!buf_read_file(out, path, MAX_PEM, st)) return status_prefix(st, "--%s %.200s", option, path);
    return out->len || status_set(st, ST_INVALID, "--%s %.200s is empty", option, path);
}

static bool check_cert(const char *path, const char *text, status *st) {
    if (strstr(text, "-----BEGIN CERTIFICATE-----")) return true;
    return status_set(st, ST_INVALID, "--ssl-certfile %.200s holds no certificate in PEM form%s", path,
                      strstr(text, "PRIVATE KEY-----") ? ", but a key: are the two files swapped?" : "");
}

static bool check_key(const char *path, const char *text, status *st) {
    if (strstr(text, "ENCRYPTED"))
        return status_set(st, ST_INVALID,
                          "--ssl-keyfile %.200s is encrypted; give a key without a password that only this "
                          "user may read",
                          path);
    if (strstr(text, "PRIVATE KEY-----")) return true;
    return status_set(st, ST_INVALID, "--ssl-keyfile %.200s holds no private key in PEM form%s", path,
                      strstr(text, "BEGIN CERTIFICATE") ? ", but a certificate: are the two files swapped?"
                                                        : "");
}

bool tls_load(const char *certfile, const char *keyfile, tls_files *out, status *st) {
    *out = (tls_files){0};
    if (read_file("ssl-certfile", certfile, &out->cert, st) && check_cert(certfile, out->cert.data, st) &&
        read_file("ssl-keyfile", keyfile, &out->key, st) && check_key(keyfile, out->key.data, st))
        return true;
    tls_fini(out);
    return false;
}

void tls_fini(tls_files *t) {
    if (t->key.data) explicit_bzero(t->key.data, t->key.len);
    buf_fini(&t->cert);
    buf_fini(&t->key);
}

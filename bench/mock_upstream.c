/* mock_upstream: a fast mock of the Anthropic Messages API (and, for translation
 * benchmarks, of OpenAI chat completions).  One epoll thread a process, bytes
 * rendered beforehand, SO_REUSEPORT so that several processes can share a port.
 *
 *   cc -O2 -o mock_upstream mock_upstream.c -ldl
 *   ./mock_upstream [--port 9900] [--procs 1] [--tls-port 9901 --cert C.pem --key K.pem]
 *
 * TLS takes libssl.so.3 at run time, so that no headers are needed to build.
 *
 * What a request gets is read from its model name (which survives every proxy),
 * or from an `x-mock:` header (which wins): the part after "mock", split at '-',
 * each field one letter and a number:
 *   n  content_block_delta events in a stream               (default 16)
 *   d  delay between these events, in ms; 0 = unpaced        (default 0)
 *   D  the same in microseconds
 *   t  delay before the first byte, in ms                    (default 0)
 *   l  delay between message_start and the first delta of a paced stream, in ms
 *   s  bytes of text in one delta, at least 22               (default 24)
 *   b  bytes of text in a non-streamed answer                (default 256)
 *   w  events joined in one write when unpaced               (default 1)
 *   e  answer with this HTTP status and an Anthropic error body
 *   k  cut the connection after this many deltas
 * e.g. "claude-mock-n200-d50-t100".  The body's "stream":true asks for SSE.
 *
 * Every delta's text starts with ~T<19 digits>~: the CLOCK_MONOTONIC time in ns at
 * which the mock sent it.  A load generator on the same machine subtracts it from
 * its own clock: that is the event's delay on the way.
 *
 * Paths: POST .../messages, POST .../messages/count_tokens, POST .../chat/completions,
 * GET /__stats (counters, JSON), GET /__last (head and beginning of the body of the
 * newest request, as it arrived); anything else answers 200 {"ok":true}.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { F_ANTHROPIC, F_OPENAI };

typedef struct { char *p; size_t len; size_t stamp; } tmpl; /* stamp: offset of the 19 digits */

typedef struct conn {
    int fd;
    void *ssl;                      /* NULL: plain TCP */
    char *in; size_t in_cap, in_len;
    size_t hdr_len;                 /* 0: headers not complete */
    size_t content_len; int chunked, chunk_done; size_t cpos, blen;
    int close_after;
    char *out; size_t out_cap, out_len, out_off;
    int want_out;
    int busy;                       /* a response is under way */
    int stream, fmt; long n, i, w, cut; int64_t d_ns, l_ns, next_ns; int started;
    long s, b, status;
    int hpos;                       /* position in the timer heap, -1 none */
    struct conn *rn, *rp; int in_ring;
    struct conn *dead_next; int dead;
} conn;

static int ep;
static int64_t st_requests, st_streams, st_active, st_events, st_conns, st_bytes_in, st_aborts;
static conn *dead_list;

static int64_t now_ns(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000000000LL + t.tv_nsec; }
static void die(const char *m) { perror(m); exit(1); }

/* ---- TLS: the few calls of OpenSSL 3 that are used, looked up at start ---- */
static struct {
    void *ctx;
    void *(*method)(void), *(*ctx_new)(const void *), *(*ssl_new)(void *);
    int (*use_cert)(void *, const char *), (*use_key)(void *, const char *, int), (*set_fd)(void *, int);
    long (*ctx_ctrl)(void *, int, long, void *);
    void (*accept_state)(void *), (*ssl_free)(void *), (*clear_errors)(void);
    int (*read)(void *, void *, int), (*write)(void *, const void *, int), (*error)(const void *, int);
} T;
static void tls_init(const char *cert, const char *key) {
    void *l = dlopen("libssl.so.3", RTLD_NOW | RTLD_GLOBAL);
    if (!l) { fprintf(stderr, "%s\n", dlerror()); exit(1); }
#define GET(field, symbol) if (!(*(void **)&T.field = dlsym(l, symbol))) { fprintf(stderr, "%s\n", dlerror()); exit(1); }
    GET(method, "TLS_server_method") GET(ctx_new, "SSL_CTX_new") GET(ssl_new, "SSL_new")
    GET(use_cert, "SSL_CTX_use_certificate_chain_file") GET(use_key, "SSL_CTX_use_PrivateKey_file") GET(set_fd, "SSL_set_fd")
    GET(ctx_ctrl, "SSL_CTX_ctrl") GET(accept_state, "SSL_set_accept_state") GET(ssl_free, "SSL_free") GET(clear_errors, "ERR_clear_error")
    GET(read, "SSL_read") GET(write, "SSL_write") GET(error, "SSL_get_error")
#undef GET
    T.ctx = T.ctx_new(T.method());
    T.ctx_ctrl(T.ctx, 33, 1 | 2 | 16, NULL);    /* SSL_CTRL_MODE: partial writes, moving buffers, buffers released when idle */
    if (T.use_cert(T.ctx, cert) != 1 || T.use_key(T.ctx, key, 1) != 1) { fprintf(stderr, "cannot use %s and %s\n", cert, key); exit(1); }
}
/* as recv and send: TLS that must wait says EAGAIN */
static ssize_t tls_result(void *ssl, int r) {
    if (r > 0) return r;
    int e = T.error(ssl, r);
    if (e == 2 || e == 3) errno = EAGAIN; else if (e == 6) return 0; else if (e != 5 || !errno) errno = EPROTO;
    return -1;
}
static ssize_t io_recv(int fd, void *ssl, void *p, size_t n) {
    if (!ssl) return recv(fd, p, n, 0);
    T.clear_errors(); errno = 0; return tls_result(ssl, T.read(ssl, p, n > 1 << 30 ? 1 << 30 : n));
}
static ssize_t io_send(int fd, void *ssl, const void *p, size_t n) {
    if (!ssl) return send(fd, p, n, MSG_NOSIGNAL);
    T.clear_errors(); errno = 0; return tls_result(ssl, T.write(ssl, p, n > 1 << 30 ? 1 << 30 : n));
}

/* ---- timer heap ---- */
static conn **heap; static int heap_n, heap_cap;
static void h_swap(int a, int b) { conn *x = heap[a]; heap[a] = heap[b]; heap[b] = x; heap[a]->hpos = a; heap[b]->hpos = b; }
static void h_up(int i) { while (i && heap[(i - 1) / 2]->next_ns > heap[i]->next_ns) { h_swap(i, (i - 1) / 2); i = (i - 1) / 2; } }
static void h_down(int i) {
    for (;;) { int l = 2 * i + 1, m = i;
        if (l < heap_n && heap[l]->next_ns < heap[m]->next_ns) m = l;
        if (l + 1 < heap_n && heap[l + 1]->next_ns < heap[m]->next_ns) m = l + 1;
        if (m == i) return; h_swap(i, m); i = m; }
}
static void h_push(conn *c) {
    if (heap_n == heap_cap) { heap_cap = heap_cap ? heap_cap * 2 : 1024; heap = realloc(heap, heap_cap * sizeof *heap); }
    heap[heap_n] = c; c->hpos = heap_n; h_up(heap_n++);
}
static void h_del(conn *c) {
    int i = c->hpos; if (i < 0) return;
    heap_n--; if (i != heap_n) { heap[i] = heap[heap_n]; heap[i]->hpos = i; h_down(i); h_up(i); }
    c->hpos = -1;
}
/* ---- ring of unpaced streams that can take more ---- */
static conn ring = { .rn = &ring, .rp = &ring };
static void r_add(conn *c) { if (c->in_ring) return; c->in_ring = 1; c->rn = &ring; c->rp = ring.rp; ring.rp->rn = c; ring.rp = c; }
static void r_del(conn *c) { if (!c->in_ring) return; c->in_ring = 0; c->rp->rn = c->rn; c->rn->rp = c->rp; }

static void c_mod(conn *c, int out) {
    if (c->want_out == out) return; c->want_out = out;
    struct epoll_event e = { .events = EPOLLIN | EPOLLRDHUP | (out ? EPOLLOUT : 0), .data.ptr = c };
    epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
}
static void c_close(conn *c) {
    if (c->dead) return;
    if (c->busy && c->stream) { st_active--; if (c->i < c->n) st_aborts++; }
    h_del(c); r_del(c); if (c->ssl) T.ssl_free(c->ssl); close(c->fd); st_conns--; c->dead = 1; c->dead_next = dead_list; dead_list = c;
}
static void c_put(conn *c, const char *p, size_t len) {
    if (c->out_off == c->out_len) c->out_off = c->out_len = 0;
    if (c->out_len + len > c->out_cap) { c->out_cap = (c->out_len + len) * 2; c->out = realloc(c->out, c->out_cap); }
    memcpy(c->out + c->out_len, p, len); c->out_len += len;
}
/* 1: all written, 0: pending, -1: closed */
static int c_flush(conn *c) {
    while (c->out_off < c->out_len) {
        ssize_t r = io_send(c->fd, c->ssl, c->out + c->out_off, c->out_len - c->out_off);
        if (r < 0) {
            if (errno == EINTR) continue;
            if (errno == EAGAIN) { c_mod(c, 1); return 0; }
            c_close(c); return -1;
        }
        c->out_off += r;
    }
    c->out_off = c->out_len = 0; c_mod(c, 0); return 1;
}

/* ---- rendered bytes ---- */
/* The headers that come with an answer of api.anthropic.com, beside its framing. */
#define HEADERS "date: Fri, 20 Nov 2026 10:00:00 GMT\r\nserver: cloudflare\r\n" \
    "anthropic-ratelimit-requests-limit: 1000000000\r\nanthropic-ratelimit-requests-remaining: 1000000000\r\nanthropic-ratelimit-requests-reset: 2026-11-20T10:00:01Z\r\n" \
    "anthropic-ratelimit-input-tokens-limit: 1000000000\r\nanthropic-ratelimit-input-tokens-remaining: 1000000000\r\nanthropic-ratelimit-input-tokens-reset: 2026-11-20T10:00:01Z\r\n" \
    "anthropic-ratelimit-output-tokens-limit: 1000000000\r\nanthropic-ratelimit-output-tokens-remaining: 1000000000\r\nanthropic-ratelimit-output-tokens-reset: 2026-11-20T10:00:00Z\r\n" \
    "request-id: req_mock0000000000000000\r\nanthropic-organization-id: 00000000-0000-4000-8000-000000000000\r\n" \
    "strict-transport-security: max-age=31536000; includeSubDomains; preload\r\nvia: 1.1 google\r\ncf-cache-status: DYNAMIC\r\nx-robots-tag: none\r\ncf-ray: 0000000000000000-FRA\r\n"
static const char PAD[] = "lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod tempor incididunt ut labore et dolore magna aliqua ";
static void pad(char *d, size_t n) { for (size_t i = 0; i < n; i++) d[i] = PAD[i % (sizeof PAD - 1)]; }
static const char STAMP[] = "~T0000000000000000000~";

static char *chunk(const char *s, size_t len, size_t *out_len) { /* an HTTP chunk */
    char *r = malloc(len + 32); int h = sprintf(r, "%zx\r\n", len);
    memcpy(r + h, s, len); memcpy(r + h + len, "\r\n", 2); *out_len = h + len + 2; return r;
}
static tmpl *delta_tmpl(int fmt, long s) {
    static struct { long s; tmpl t; } cache[2][64]; static int used[2];
    for (int i = 0; i < used[fmt]; i++) if (cache[fmt][i].s == s) return &cache[fmt][i].t;
    if (used[fmt] == 64) return &cache[fmt][0].t;
    size_t cap = s + 512; char *e = malloc(cap), *text = malloc(s + 1);
    memcpy(text, STAMP, 22); pad(text + 22, s - 22); text[s] = 0;
    int len = fmt == F_ANTHROPIC
        ? snprintf(e, cap, "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"%s\"}}\n\n", text)
        : snprintf(e, cap, "data: {\"id\":\"chatcmpl-mock\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"mock\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"%s\"},\"finish_reason\":null}]}\n\n", text);
    tmpl *t = &cache[fmt][used[fmt]].t; cache[fmt][used[fmt]].s = s; used[fmt]++;
    t->p = chunk(e, len, &t->len);
    t->stamp = (char *)memmem(t->p, t->len, "~T", 2) - t->p + 2;
    free(e); free(text); return t;
}
static void put_stream_head(conn *c) {
    static const char H[] = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
        HEADERS "transfer-encoding: chunked\r\nconnection: keep-alive\r\n\r\n";
    static const char A[] =
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_mock000000000000000000\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-mock\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":{\"input_tokens\":1200,\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":0,\"output_tokens\":1}}}\n\n"
        "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n"
        "event: ping\ndata: {\"type\":\"ping\"}\n\n";
    static const char O[] = "data: {\"id\":\"chatcmpl-mock\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"mock\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n";
    static char *ca, *co; static size_t la, lo;
    if (!ca) { ca = chunk(A, sizeof A - 1, &la); co = chunk(O, sizeof O - 1, &lo); }
    c_put(c, H, sizeof H - 1);
    if (c->fmt == F_ANTHROPIC) c_put(c, ca, la); else c_put(c, co, lo);
}
static void put_stream_tail(conn *c) {
    char e[1024]; size_t l; int n = c->fmt == F_ANTHROPIC
        ? snprintf(e, sizeof e, "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n"
            "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":%ld}}\n\n"
            "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n", c->n)
        : snprintf(e, sizeof e, "data: {\"id\":\"chatcmpl-mock\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"mock\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":1200,\"completion_tokens\":%ld,\"total_tokens\":%ld}}\n\ndata: [DONE]\n\n", c->n, c->n + 1200);
    char *k = chunk(e, n, &l); c_put(c, k, l); free(k); c_put(c, "0\r\n\r\n", 5);
}
static void put_delta(conn *c, int64_t now) {
    tmpl *t = delta_tmpl(c->fmt, c->s);
    char *d = t->p + t->stamp + 18; int64_t v = now;
    for (int k = 0; k < 19; k++) { *d-- = '0' + v % 10; v /= 10; }
    c_put(c, t->p, t->len); st_events++;
}
static void put_full(conn *c, int status, const char *ctype, const char *body, size_t len) {
    char h[2048]; int n = snprintf(h, sizeof h, "HTTP/1.1 %d %s\r\ncontent-type: %s\r\n" HEADERS "content-length: %zu\r\nconnection: %s\r\n\r\n",
        status, status == 200 ? "OK" : "Error", ctype, len, c->close_after ? "close" : "keep-alive");
    c_put(c, h, n); c_put(c, body, len);
}
static void put_json(conn *c) {
    static struct { int fmt; long b; char *p; size_t len; } cache[64]; static int used;
    int i; for (i = 0; i < used; i++) if (cache[i].fmt == c->fmt && cache[i].b == c->b) break;
    if (i == used) {
        if (used == 64) { used--; i--; free(cache[i].p); }
        size_t cap = c->b + 1024; char *text = malloc(c->b + 1), *e = malloc(cap); pad(text, c->b); text[c->b] = 0;
        cache[i].len = c->fmt == F_ANTHROPIC
            ? snprintf(e, cap, "{\"id\":\"msg_mock000000000000000000\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-mock\",\"content\":[{\"type\":\"text\",\"text\":\"%s\"}],\"stop_reason\":\"end_turn\",\"stop_sequence\":null,\"usage\":{\"input_tokens\":1200,\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":0,\"output_tokens\":64}}", text)
            : snprintf(e, cap, "{\"id\":\"chatcmpl-mock\",\"object\":\"chat.completion\",\"created\":1700000000,\"model\":\"mock\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"%s\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":1200,\"completion_tokens\":64,\"total_tokens\":1264}}", text);
        cache[i].fmt = c->fmt; cache[i].b = c->b; cache[i].p = e; free(text); used++;
    }
    put_full(c, 200, "application/json", cache[i].p, cache[i].len);
}

/* ---- request handling ---- */
static int parse_in(conn *c);
static char last[16384]; static size_t last_len;
static void finish(conn *c) {
    if (c->stream) st_active--;
    c->busy = 0; c->stream = 0; c->started = 0;
    if (c->close_after && c->out_off == c->out_len) c_close(c);
}
static void pump(conn *c, int64_t now) {  /* the timer fired, or its turn in the ring */
    if (!c->started) {
        c->started = 1;
        if (c->status != 200) {
            char e[256]; int n = snprintf(e, sizeof e, "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":\"mock error\"},\"request_id\":\"req_mock\"}",
                c->status == 429 ? "rate_limit_error" : c->status == 529 ? "overloaded_error" : c->status < 500 ? "invalid_request_error" : "api_error");
            if (c->stream) { st_active--; c->stream = 0; }
            put_full(c, c->status, "application/json", e, n);
        } else if (!c->stream) put_json(c);
        else put_stream_head(c);
        if (!c->stream) { if (c_flush(c) >= 0) finish(c); return; }
        if (c->d_ns) { if (c_flush(c) < 0) return; c->next_ns = now + c->l_ns; h_push(c); return; }
        if (c->w < 2) { int f = c_flush(c); if (f < 0) return; if (f) r_add(c); return; }
    }
    if (c->cut && c->i >= c->cut) { c_flush(c); c_close(c); return; }
    if (c->i < c->n) {
        for (long k = 0; k < (c->d_ns ? 1 : c->w) && c->i < c->n; k++, c->i++) put_delta(c, now);
    }
    int last = c->i >= c->n && !(c->cut && c->cut <= c->n);
    if (last) put_stream_tail(c);
    int f = c_flush(c); if (f < 0) return;
    if (last) { r_del(c); finish(c); return; }
    if (c->d_ns) { c->next_ns += c->d_ns; if (now - c->next_ns > 1000000000LL) c->next_ns = now; h_push(c); }
    else if (f) r_add(c); else r_del(c);
}
static const char *find_key(const char *b, size_t n, const char *key) { /* key with quotes; looks at head and tail first */
    size_t kl = strlen(key), w = 8192; const char *p;
    if (n <= 2 * w) return memmem(b, n, key, kl);
    if ((p = memmem(b, w, key, kl))) return p;
    if ((p = memmem(b + n - w, w, key, kl))) return p;
    return memmem(b, n, key, kl);
}
static void spec(conn *c, const char *p, const char *end) {
    while (p < end) {
        char k = *p++; if (k == '-' || k == ',' || k == '=') continue;
        const char *q = p; if (q < end && *q == '=') q++;
        if (q >= end || *q < '0' || *q > '9') continue;
        long v = 0; while (q < end && *q >= '0' && *q <= '9') v = v * 10 + (*q++ - '0');
        p = q;
        switch (k) {
        case 'n': c->n = v; break; case 'd': c->d_ns = v * 1000000LL; break; case 'D': c->d_ns = v * 1000LL; break;
        case 'l': c->l_ns = v * 1000000LL; break;
        case 't': c->next_ns += v * 1000000LL; break; case 's': c->s = v < 22 ? 22 : v > 65536 ? 65536 : v; break;
        case 'b': c->b = v > (8 << 20) ? 8 << 20 : v; break; case 'w': c->w = v < 1 ? 1 : v; break;
        case 'e': c->status = v; break; case 'k': c->cut = v; break; }
    }
}
static void handle(conn *c, const char *method, const char *path, size_t path_len, const char *xmock, size_t xmock_len, const char *body, size_t blen) {
    int64_t now = now_ns();
    st_requests++; c->busy = 1; c->started = 0; c->stream = 0;
    c->n = 16; c->i = 0; c->d_ns = c->l_ns = 0; c->s = 24; c->b = 256; c->w = 1; c->cut = 0; c->status = 200; c->next_ns = now; c->fmt = F_ANTHROPIC;
    int messages = memmem(path, path_len, "/messages", 9) != NULL, chat = memmem(path, path_len, "/chat/completions", 17) != NULL;
    if (*method != 'P' || !(messages || chat)) {
        char b[512]; int n;
        st_requests--;
        if (memmem(path, path_len, "/__stats", 8))
            n = snprintf(b, sizeof b, "{\"requests\":%lld,\"streams\":%lld,\"active_streams\":%lld,\"events\":%lld,\"conns\":%lld,\"bytes_in\":%lld,\"aborted_streams\":%lld}",
                (long long)st_requests, (long long)st_streams, (long long)st_active, (long long)st_events, (long long)st_conns, (long long)st_bytes_in, (long long)st_aborts);
        else if (memmem(path, path_len, "/__last", 7)) { put_full(c, 200, "text/plain", last, last_len); if (c_flush(c) >= 0) finish(c); return; }
        else n = snprintf(b, sizeof b, "{\"ok\":true}");
        put_full(c, 200, "application/json", b, n); if (c_flush(c) >= 0) finish(c); return;
    }
    if (memmem(path, path_len, "count_tokens", 12)) { put_full(c, 200, "application/json", "{\"input_tokens\":1200}", 21); if (c_flush(c) >= 0) finish(c); return; }
    if (chat) c->fmt = F_OPENAI;
    const char *p = find_key(body, blen, "\"model\""), *end = body + blen;
    if (p) {
        p += 7; while (p < end && *p != '"') p++; p++;
        const char *q = p; while (q < end && *q != '"') q++;
        if (q <= end && p < q) { const char *m = memmem(p, q - p, "mock", 4); if (m) spec(c, m + 4, q); }
    }
    if (xmock) spec(c, xmock, xmock + xmock_len);
    p = blen > 16384 ? memmem(end - 8192, 8192, "\"stream\"", 8) : NULL;     /* in a large body the head holds tools, which may name anything */
    if (!p) p = find_key(body, blen, "\"stream\"");
    if (p) { p += 8; while (p < end && (*p == ' ' || *p == ':')) p++; c->stream = end - p >= 4 && !memcmp(p, "true", 4); }
    if (c->stream) { st_streams++; st_active++; }
    if (c->next_ns > now) h_push(c); else pump(c, now);
}
/* take one request out of the input; 1: took one, 0: need more, -1: closed */
static int parse_in(conn *c) {
    if (c->busy || c->in_len == 0) return 0;
    if (!c->hdr_len) {
        char *e = memmem(c->in, c->in_len, "\r\n\r\n", 4);
        if (!e) { if (c->in_len > 65536) { c_close(c); return -1; } return 0; }
        c->hdr_len = e - c->in + 4; c->content_len = 0; c->chunked = c->chunk_done = 0; c->close_after = 0;
        for (char *l = memchr(c->in, '\n', c->hdr_len); l && l < e; l = memchr(l, '\n', e + 2 - l)) {
            l++;
            if (!strncasecmp(l, "content-length:", 15)) c->content_len = strtoul(l + 15, NULL, 10);
            else if (!strncasecmp(l, "transfer-encoding:", 18)) { char *eol = memchr(l, '\r', e + 2 - l); c->chunked = eol && memmem(l, eol - l, "chunked", 7); }
            else if (!strncasecmp(l, "connection:", 11)) { char *eol = memchr(l, '\r', e + 2 - l); c->close_after = eol && memmem(l, eol - l, "close", 5); }
            else if (!strncasecmp(l, "expect:", 7)) { c_put(c, "HTTP/1.1 100 Continue\r\n\r\n", 25); if (c_flush(c) < 0) return -1; }
        }
        c->cpos = c->hdr_len; c->blen = 0;
    }
    size_t end;
    if (c->chunked) {
        while (!c->chunk_done) {
            char *b = c->in + c->cpos, *nl = memchr(b, '\n', c->in_len - c->cpos);
            if (!nl) return 0;
            size_t k = strtoul(b, NULL, 16), need = (nl + 1 - c->in) + k + 2;
            if (c->in_len < need) return 0;
            if (k == 0) { c->chunk_done = 1; c->cpos = need; break; }
            memmove(c->in + c->hdr_len + c->blen, nl + 1, k); c->blen += k; c->cpos = need;
        }
        end = c->cpos;
    } else {
        if (c->in_len < c->hdr_len + c->content_len) return 0;
        c->blen = c->content_len; end = c->hdr_len + c->content_len;
    }
    char *sp = memchr(c->in, ' ', c->hdr_len), *sp2 = sp ? memchr(sp + 1, ' ', c->in + c->hdr_len - sp - 1) : NULL;
    if (!sp2) { c_close(c); return -1; }
    const char *xm = NULL; size_t xl = 0; char save = c->in[c->hdr_len - 1]; c->in[c->hdr_len - 1] = 0;
    char *x = strcasestr(c->in, "\r\nx-mock:"); if (x) { xm = x + 9; xl = strcspn(xm, "\r"); }
    c->in[c->hdr_len - 1] = save;
    size_t hl = c->hdr_len, bl = c->blen; c->hdr_len = 0;
    if (*c->in == 'P') { last_len = hl + (bl < 512 ? bl : 512); if (last_len > sizeof last) last_len = sizeof last; memcpy(last, c->in, last_len); }
    handle(c, c->in, sp + 1, sp2 - sp - 1, xm, xl, c->in + hl, bl);
    if (c->dead) return -1;
    c->in_len -= end; if (c->in_len) memmove(c->in, c->in + end, c->in_len);
    return 1;
}
static void on_read(conn *c) {
    for (;;) {
        size_t want = 65536; if (c->hdr_len && !c->chunked && c->hdr_len + c->content_len > c->in_len) { size_t r = c->hdr_len + c->content_len - c->in_len; if (r > want) want = r; }
        if (c->in_cap - c->in_len < want) { c->in_cap = c->in_len + want; c->in = realloc(c->in, c->in_cap + 1); }
        ssize_t r = io_recv(c->fd, c->ssl, c->in + c->in_len, c->in_cap - c->in_len);
        if (r < 0) { if (errno == EINTR) continue; if (errno == EAGAIN) return; c_close(c); return; }
        if (r == 0) { c_close(c); return; }
        size_t room = c->in_cap - c->in_len; c->in_len += r; st_bytes_in += r;
        while (parse_in(c) == 1) ;
        if (c->dead || (!c->ssl && (size_t)r < room)) return;   /* TLS gives a record at a time: read until EAGAIN */
    }
}
static void on_out(conn *c) {
    int f = c_flush(c); if (f <= 0) return;
    if (c->busy && c->stream && !c->d_ns && c->started) r_add(c);
    if (!c->busy) { if (c->close_after) { c_close(c); return; } while (!c->dead && parse_in(c) == 1) ; }
}
static int listener(int port) {
    int ls = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    setsockopt(ls, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one); setsockopt(ls, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    if (bind(ls, (void *)&a, sizeof a) || listen(ls, 4096)) die("listen");
    return ls;
}
_Noreturn static void run(int port, int tls_port) {
    static conn plain_mark, tls_mark;   /* in an event's data: a listener, not a connection */
    int plain = listener(port), tls = tls_port ? listener(tls_port) : -1, one = 1;
    ep = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event e = { .events = EPOLLIN, .data.ptr = &plain_mark }; epoll_ctl(ep, EPOLL_CTL_ADD, plain, &e);
    if (tls_port) { e.data.ptr = &tls_mark; epoll_ctl(ep, EPOLL_CTL_ADD, tls, &e); }
    struct epoll_event ev[512];
    for (;;) {
        struct timespec ts = { 0, 0 }, *tp = &ts;
        if (ring.rn == &ring) {
            if (heap_n) { int64_t d = heap[0]->next_ns - now_ns(); if (d < 0) d = 0; ts.tv_sec = d / 1000000000LL; ts.tv_nsec = d % 1000000000LL; }
            else tp = NULL;
        }
        int n = epoll_pwait2(ep, ev, 512, tp, NULL);
        for (int k = 0; k < n; k++) {
            conn *c = ev[k].data.ptr;
            if (c == &plain_mark || c == &tls_mark) {
                int ls = c == &tls_mark ? tls : plain;
                for (int j = 0; j < 64; j++) {
                    int fd = accept4(ls, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC); if (fd < 0) break;
                    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                    conn *x = calloc(1, sizeof *x); x->fd = fd; x->hpos = -1; st_conns++;
                    if (ls == tls) { x->ssl = T.ssl_new(T.ctx); T.set_fd(x->ssl, fd); T.accept_state(x->ssl); }
                    struct epoll_event f = { .events = EPOLLIN | EPOLLRDHUP, .data.ptr = x }; epoll_ctl(ep, EPOLL_CTL_ADD, fd, &f);
                }
                continue;
            }
            if (c->dead) continue;
            if (ev[k].events & (EPOLLHUP | EPOLLERR)) { c_close(c); continue; }
            if (ev[k].events & EPOLLOUT) on_out(c);
            if (!c->dead && (ev[k].events & (EPOLLIN | EPOLLRDHUP))) {
                on_read(c);
                if (!c->dead && (ev[k].events & EPOLLRDHUP) && c->busy && c->stream) c_close(c); /* the client went away */
            }
        }
        int64_t now = now_ns(); int left = 4096;
        while (heap_n && heap[0]->next_ns <= now && left--) { conn *c = heap[0]; h_del(c); pump(c, now_ns()); if (!c->dead && !c->busy) while (!c->dead && parse_in(c) == 1) ; }
        if (ring.rn != &ring) {
            conn *stop = ring.rp;
            for (conn *c = ring.rn, *nx;; c = nx) { nx = c->rn; int is_last = c == stop; pump(c, now_ns()); if (!c->dead && !c->busy) while (!c->dead && parse_in(c) == 1) ; if (is_last || nx == &ring) break; }
        }
        while (dead_list) { conn *c = dead_list; dead_list = c->dead_next; free(c->in); free(c->out); free(c); }
    }
}
int main(int argc, char **argv) {
    int port = 9900, procs = 1, tls_port = 0; const char *cert = "", *key = "";
    for (int i = 1; i + 1 < argc; i += 2) {
        char *o = argv[i], *v = argv[i + 1];
        if (!strcmp(o, "--port")) port = atoi(v); else if (!strcmp(o, "--procs")) procs = atoi(v); else if (!strcmp(o, "--tls-port")) tls_port = atoi(v);
        else if (!strcmp(o, "--cert")) cert = v; else if (!strcmp(o, "--key")) key = v;
        else { fprintf(stderr, "unknown option %s\n", o); return 2; }
    }
    signal(SIGPIPE, SIG_IGN);
    if (tls_port) tls_init(cert, key);
    for (int i = 1; i < procs; i++) if (fork() == 0) { prctl(PR_SET_PDEATHSIG, SIGTERM); run(port, tls_port); }
    fprintf(stderr, "mock_upstream on 127.0.0.1:%d, %d process(es)\n", port, procs);
    run(port, tls_port);
}
